"""What an exported folder says about itself."""

from natjax.config import Config
from natjax.data.vocab import Vocabularies
from natjax.frames import target_limit

_TEXT = """# {name}: a translation model for CTranslate2

{source_language} to {target_language}, weights stored as {quantization}, written by `natjax export`. It needs neither
natjax nor JAX:

    pip install ctranslate2 sentencepiece

In this folder:

```python
import sys
import unicodedata

import ctranslate2
import sentencepiece

source = sentencepiece.SentencePieceProcessor(model_file="{source_model}")
target = sentencepiece.SentencePieceProcessor(model_file="{target_model}")
translator = ctranslate2.Translator(".", device="cpu")  # or "cuda"


def normalise(line):
    # The form that the model was trained on: single spaces, nothing invisible, NFKC.
    line = "".join(" " if c.isspace() or c == "\\u2581" else c for c in line)
    line = "".join(c for c in line if unicodedata.category(c) not in ("Cc", "Cf"))
    return " ".join(unicodedata.normalize("NFKC", line).split())


def translate(lines):
    results = translator.translate_batch(
        source.encode([normalise(line) for line in lines], out_type=str),
        beam_size={beam_size},
        length_penalty={length_penalty},
        max_input_length={max_input},
        max_decoding_length={max_output},
        max_batch_size=32,
    )
    return [target.decode(result.hypotheses[0]) for result in results]


sys.stdin.reconfigure(encoding="utf-8", newline="\\n")  # nothing else ends a line
sys.stdout.reconfigure(encoding="utf-8")
for line in translate(sys.stdin):
    print(line)
```

Sources end in `</s>`, which CTranslate2 adds (`add_source_eos` in config.json). A source of more than {max_input}
pieces is cut off there without a word; natjax cuts it into parts, translates each and joins them.
"""


def readme(config: Config, vocabularies: Vocabularies, quantization: str) -> str:
    """README.md of a CTranslate2 folder: what it is, and a program that translates stdin, to be run inside.

    Args:
        config: the run's config.
        vocabularies: of the run.
        quantization: how the weights are stored.
    """
    names = list(vocabularies.files())
    return _TEXT.format(
        name=config.name,
        source_language=config.data.source_language,
        target_language=config.data.target_language,
        quantization=quantization,
        source_model=names[0],
        target_model=names[-1],
        beam_size=config.decoding.beam_size,
        length_penalty=config.decoding.length_penalty,
        max_input=most_pieces(config)[0],
        max_output=most_pieces(config)[1],
    )


def most_pieces(config: Config) -> tuple[int, int]:
    """Most pieces of a source and of a translation, eos included."""
    longest = config.decoding.max_source_length
    return longest, target_limit(longest, config.decoding.max_length_ratio)
