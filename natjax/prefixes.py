"""Prefixes: words that translations have to begin with, for models that translate word by word."""

from collections.abc import Sequence

from natjax.config import Config
from natjax.data.corpus import normalise
from natjax.data.vocab import Vocabulary
from natjax.errors import PrefixError, UserError
from natjax.frames import target_limit
from natjax.segments import Segments


def check(config: Config) -> None:
    """Raises UserError for a model that gives all words at once."""
    if config.model.kind != "autoregressive":
        raise UserError(
            f"{config.name}: a non-autoregressive model gives all words at once, none after a prefix; leave prefixes "
            "out, or take an autoregressive model"
        )


def forced(
    prefixes: Sequence[str] | None, parts: Segments, config: Config, vocabulary: Vocabulary
) -> list[list[int]] | None:
    """The pieces that each segment's translation begins with: a line's prefix for its first one, none for the others.

    Args:
        prefixes: raw text, one a line; an empty one forces nothing. None: there are none, nor in the result.
        parts: the lines' segments. A line without any stays without translation, whatever its prefix.
        config: of the model.
        vocabulary: of the target.

    Raises:
        TypeError: `prefixes` is a single string.
        ValueError: there are more or fewer prefixes than lines.
        UserError: the model is not autoregressive.
        PrefixError: a prefix leaves its translation no room.
    """
    if prefixes is None:
        return None
    if isinstance(prefixes, str | bytes):
        raise TypeError("prefixes is a single string; give a list with one prefix a line")
    if len(prefixes) != parts.lines:
        raise ValueError(f"{len(prefixes)} prefixes for {parts.lines} lines; give one a line, which may be empty")
    check(config)
    pieces, found, seen = vocabulary.encode([normalise(prefix) for prefix in prefixes]), [], set()
    for owner, source in zip(parts.owners, parts.sources, strict=True):
        prefix = [] if owner in seen else pieces[owner]
        seen.add(owner)
        most = target_limit(len(source), config.decoding.max_length_ratio) - 1  # and eos
        if len(prefix) > most:
            raise PrefixError(
                owner,
                f"a prefix of {len(prefix):,} pieces, but translations of this source have {most:,} at most "
                "(decoding.max_length_ratio); shorten it, or raise that",
            )
        found.append(prefix)
    return found
