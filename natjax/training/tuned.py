"""What `natjax tune` has found for a workdir's model: `W/decoding.json`, above the config, below the command line.

It holds fields of the decoding section: the weights, and what they were tuned with, since a bonus of one form means
nothing to another. Under "about": which language model (its fingerprint), on which text, and how good it was there.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

from natjax import atomic
from natjax.config import DecodingConfig
from natjax.errors import WorkdirError
from natjax.typed import build

FILE = "decoding.json"


class Tuned(NamedTuple):
    """What a file says.

    Attributes:
        fields: of the decoding section; a language model inside the workdir by a path that leads there.
        about: how they were found.
    """

    fields: dict[str, Any]
    about: dict[str, Any]


def read(folder: Path) -> Tuned:
    """What was found for a workdir; nothing where nothing was.

    Raises:
        WorkdirError: the file cannot be read, or is not JSON.
        ConfigError: an unknown field, or a value of the wrong type.
    """
    file = folder / FILE
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Tuned({}, {})
    except OSError as error:
        raise WorkdirError(f"{file}: cannot be read ({error.strerror}); mend it, or run `natjax tune` again") from None
    except UnicodeDecodeError as error:
        raise WorkdirError(f"{file}: not UTF-8 at byte {error.start}; run `natjax tune` again, or remove it") from None
    try:
        tree = json.loads(text)
    except ValueError:
        raise WorkdirError(f"{file}: not valid JSON; run `natjax tune` again, or remove it") from None
    about = tree.pop("about", {}) if isinstance(tree, dict) else {}
    checked = build(DecodingConfig, tree, str(file))
    fields = {name: getattr(checked, name) for name in tree}
    if fields.get("lm"):
        fields["lm"] = str(folder / fields["lm"])  # as it is, where it is absolute
    return Tuned(fields, about if isinstance(about, dict) else {})


def write(folder: Path, fields: dict[str, Any], about: dict[str, Any]) -> None:
    """Puts fields beside those that were found before. Raises WorkdirError if it cannot."""
    fields = {**read(folder).fields, **fields}
    if fields.get("lm"):
        lm, here = Path(fields["lm"]).resolve(), folder.resolve()
        # A workdir may move, and what lies in it moves along.
        fields["lm"] = str(lm.relative_to(here) if lm.is_relative_to(here) else lm)
    atomic.write_text(folder / FILE, json.dumps({**fields, "about": about}, indent=2, ensure_ascii=False) + "\n")


def doubts(folder: Path, found: Tuned, decoding: DecodingConfig, lm: str | None) -> list[str]:
    """Why weights that were found may be the wrong ones for a search, one line each.

    Args:
        folder: the workdir.
        found: what was tuned.
        decoding: what the search does.
        lm: fingerprint of its language model, if it asks one.
    """
    fields, kept, told = found.fields, [], []
    if decoding.length_bonus and decoding.length_bonus == fields.get("length_bonus"):
        kept.append(("length_bonus", "length_bonus_form"))
    if decoding.lm_weight and decoding.lm_weight == fields.get("lm_weight"):
        kept.append(("lm_weight", "score_eos"))
        if lm and found.about.get("lm", lm) != lm:
            told.append("decoding.lm_weight was tuned with another language model")
    for weight, name in kept:
        then, now = fields.get(name), getattr(decoding, name)
        if then not in (None, now):
            told.append(f"decoding.{weight} was tuned with decoding.{name} {then}, not {now}")
    return [f"{folder / FILE}: {line}; run `natjax tune` again" for line in told]
