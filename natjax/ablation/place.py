"""The folder of a grid, and what all of its runs share: text, one vocabulary, token stores, the test set.

DIR/grid.json            whose folder it is
DIR/text/                the embedded corpus as files; the distilled target beside it
DIR/vocab/               the vocabulary, unless the config names one
DIR/stores/              token stores: raw and kd, and apart for losses that filter by frames
DIR/teacher/             a workdir, unless --teacher names one
DIR/teacher_test.json    the teacher's scores on the test set
DIR/<row>/seed<k>/       a workdir, and test.json
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from natjax import atomic
from natjax.ablation.grid import Row, row_config
from natjax.config import Config, differing_fields, expand, from_json
from natjax.data import grammar
from natjax.data.corpus import normalise, read_parallel
from natjax.data.prepare import corpus_files, prepare, read_corpus, recipe, train_vocabularies
from natjax.data.validation import ScoredText, embedded_text
from natjax.distillation.run import Say
from natjax.errors import UserError, WorkdirError
from natjax.training import workdir

TEST_SENTENCES = 1000  # of the embedded corpus

_FREE = workdir.FREE | {"training.seed"}  # what two starts on one folder may differ in


class Place:
    """The folder of a grid.

    Attributes:
        folder: where, absolute.
        config: what all rows share, on files and with the vocabulary of this folder.
        difficulty: of the embedded corpus; None where the text is files.
        test: the test set.
        test_names: names of its two files; None for the embedded corpus.
    """

    def __init__(self, folder: Path, grid: str, config: Config, test: tuple[str, str] | None):
        """Looks at everything and writes nothing.

        Args:
            folder: where.
            grid: the grid's name.
            config: what all rows share.
            test: names of the test set's two files, inside `data.root` or paths; None for the embedded corpus.

        Raises:
            UserError: the folder is another grid's, the config is no student's, the test set cannot be read.
        """
        self.folder, self.grid, self._given = folder.resolve(), grid, config
        if config.model.kind != "nat":
            raise UserError(f"{config.name}: model.kind={config.model.kind} is no student; name a config of kind nat")
        embedded = config.data.embedded
        self.difficulty = None if embedded == "none" else embedded
        if self.difficulty is None and test is None:
            raise UserError(f"{config.name}: is trained on files; name its test set with --source F --reference F")
        if self.difficulty is not None and test is not None:
            raise UserError("--source and --reference are for configs with files; the embedded corpus has its test set")
        self.test_names = test
        self._about = self._check()
        self.config = self._placed(config)
        self.test = _test(config, test)

    @property
    def distilled(self) -> Path:
        """The distilled target."""
        return self.folder / "text" / "train.distilled"

    @property
    def teacher(self) -> Path:
        """The workdir of the teacher that is trained here."""
        return self.folder / "teacher"

    @property
    def teacher_test(self) -> Path:
        """Scores of the teacher, wherever its workdir is."""
        return self.folder / "teacher_test.json"

    def workdir(self, row: Row, seed: int) -> Path:
        """The workdir of a run."""
        return self.folder / row.name / f"seed{seed}"

    def run_config(self, row: Row, seed: int) -> Config:
        """The config of a run: the row's, with its seed and the store of its kind. Raises ConfigError."""
        made = row_config(self.config, row, str(self.distilled))
        kind = "frames" if "frames_ratio" in recipe(made) else "lengths"
        store = self.folder / "stores" / f"{row.data}-{kind}"
        return replace(
            made, data=replace(made.data, store=str(store)), training=replace(made.training, seed=seed)
        )  # fmt: skip

    def test_sha256(self) -> str:
        """Checksum of the test set, references included."""
        return hashlib.sha256(json.dumps(self.test).encode()).hexdigest()

    def claim(self, say: Say) -> None:
        """Makes the folder this grid's, with text and vocabulary. Raises UserError where that cannot be."""
        with self.alone():
            self._check()  # another process may have come first
            atomic.write_text(self.folder / "grid.json", json.dumps(self._about, indent=2, ensure_ascii=False) + "\n")
            if self.difficulty is not None:
                self._write_text()
            if not self._given.vocab.path and not (self.folder / "vocab").exists():
                self._train_vocabulary(say)

    def prepare(self, config: Config, say: Say) -> None:
        """Makes the store of a run's config, if it is not there. Raises UserError."""
        with self.alone():
            if not (Path(config.data.store) / "metadata.json").exists():
                prepare(config, config.data.store, say)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """One process at a time; the others wait."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.folder, os.O_RDONLY)
        except OSError as error:
            raise WorkdirError(f"{self.folder}: cannot be used ({error.strerror}); name another --output") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _check(self) -> dict[str, Any]:
        """What grid.json is to hold. Raises WorkdirError if it holds something else."""
        version = grammar.GRAMMAR_VERSION if self.difficulty is not None else None
        test = None if self.test_names is None else list(self.test_names)
        wanted = {"grid": self.grid, "test": test, "grammar_version": version}
        file = self.folder / "grid.json"
        if file.exists():
            try:
                found = json.loads(file.read_text(encoding="utf-8"))
                old = from_json(json.dumps(found["config"]), str(file))
            except (ValueError, KeyError, TypeError):
                raise WorkdirError(f"{file}: damaged; restore it, or name another --output") from None
            changes = [
                f"{name}: {found.get(name)!r} -> {new!r}" for name, new in wanted.items() if found.get(name) != new
            ]
            changes += [d for d in differing_fields(old, self._given) if d.split(":")[0] not in _FREE]
            if changes:
                raise WorkdirError(
                    f"{self.folder}: holds a grid of another config ({'; '.join(changes)}); name another --output, or "
                    "use that config"
                )
        elif self.folder.is_dir() and any(self.folder.iterdir()):
            raise WorkdirError(f"{self.folder}: holds other things; name a new folder, or one of an ablation")
        return {**wanted, "config": asdict(self._given)}

    def _placed(self, config: Config) -> Config:
        data, vocab = config.data, config.vocab
        if self.difficulty is not None:
            names = {name: name.replace("_", ".") for name in _FILES}
            data = replace(data, embedded="none", root=str(self.folder / "text"), **names)
        if not vocab.path:
            vocab = replace(vocab, path=str(self.folder / "vocab"))
        return replace(config, data=data, vocab=vocab)

    def _write_text(self) -> None:
        (self.folder / "text").mkdir(exist_ok=True)
        splits = read_corpus(self._given)
        for name, lines in zip(_FILES, (side for split in splits for side in split), strict=True):
            file = self.folder / "text" / name.replace("_", ".")
            if not file.exists():
                atomic.write_text(file, "".join(f"{line}\n" for line in lines))

    def _train_vocabulary(self, say: Say) -> None:
        files = corpus_files(self.config, ("train",)).values()
        sides = [[normalise(line) for line in side] for side in read_parallel(*files)]
        vocabularies = train_vocabularies((sides[0], sides[1]), self._given)
        with atomic.new_folder(self.folder / "vocab") as folder:
            vocabularies.save(folder)
        say(f"vocabulary of all rows: {' and '.join(str(len(v)) for v in vocabularies.files().values())} pieces")


_FILES = ("train_source", "train_target", "valid_source", "valid_target")


def _test(config: Config, names: tuple[str, str] | None) -> ScoredText:
    if names is None:
        return embedded_text(config.data.embedded, "test", TEST_SENTENCES)
    root = Path(expand(config.data.root))
    inside = [root / expand(name) for name in names]
    sources, references = read_parallel(
        *(file if file.is_file() else Path(expand(n)) for file, n in zip(inside, names))
    )
    if not sources:
        raise UserError(f"{names[0]}: has no lines; name a test set")
    return ScoredText(sources, [[reference] for reference in references])
