"""How many decoder frames a source sentence gets, or tokens at most. One definition, for the host and compiled code.

λ·S is computed in whole numbers: in floating point ceil(1.1 · 10) is 12, and the host's float64 and the device's
float32 would disagree about which sentence fits.
"""

from fractions import Fraction
from typing import TypeVar

Integers = TypeVar("Integers")  # an int, or an integer array of numpy or jax


def frame_count(source_length: Integers, ratio: float) -> Integers:
    """T = ⌈λ·S⌉ (paper, appendix A).

    Args:
        source_length: S, an int or an integer array of any shape.
        ratio: λ, taken as the nearest fraction with a denominator of at most 100.

    >>> frame_count(3, 2.5), frame_count(10, 1.1)
    (8, 11)
    """
    exact = Fraction(ratio).limit_denominator(100)
    return -(-source_length * exact.numerator // exact.denominator)


def target_limit(source_length: Integers, ratio: float) -> Integers:
    """⌈ratio·S⌉ + 16, the most tokens of an autoregressive translation, eos included.

    Args:
        source_length: as `frame_count`.
        ratio: `decoding.max_length_ratio`.
    """
    return frame_count(source_length, ratio) + 16


def multiplied_length(length: Integers, multiplier: float) -> Integers:
    """multiplier·N to the nearest whole number, halves upwards.

    Args:
        length: N, a predicted target length, as `frame_count`.
        multiplier: `decoding.length_multiplier`, taken as `frame_count` takes a ratio.

    >>> multiplied_length(5, 1.1), multiplied_length(4, 1.1)
    (6, 4)
    """
    exact = Fraction(multiplier).limit_denominator(100)
    return (2 * length * exact.numerator + exact.denominator) // (2 * exact.denominator)


def length_limit(source_length: int, span: int, multiplier: float) -> int:
    """The longest translation of a loss with a length, in frames: room for every length predicted, and multiplied.

    A multiplier below 1 does not lower it, since given lengths are not multiplied.

    Args:
        source_length: S.
        span: `objective.length_range`.
        multiplier: `decoding.length_multiplier`.
    """
    return multiplied_length(source_length + span, max(multiplier, 1.0))
