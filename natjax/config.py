"""One run, described: frozen dataclasses, built by a `configs/*.py` file and kept as JSON.

A config file is Python with a function `get_config() -> Config`; its docstring holds the commands and the numbers
to expect. The resolved config is written to `workdir/config.json`, which is all that decoding needs.
"""

import dataclasses
import json
import os
import runpy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from natjax.errors import ConfigError, nearest, one_line
from natjax.frames import frame_count, length_limit, target_limit
from natjax.typed import build, leaves


@dataclass(frozen=True)
class DataConfig:
    """Text, and how it becomes batches of few static shapes."""

    root: str = ""
    """Folder of the text files below; `$NATJAX_DATA` and other variables are expanded."""
    train_source: str = "train.source"
    """Training source text, one sentence a line."""
    train_target: str = "train.target"
    """Training target text; name a distilled file here to train on it. Paths outside `root` and variables do, too."""
    valid_source: str = "valid.source"
    """Validation source text."""
    valid_target: str = "valid.target"
    """Validation target text."""
    embedded: Literal["none", "demo", "hard"] = "none"
    """Use natjax's own small English-German grammar at this difficulty instead of the files above."""
    obtain: str = ""
    """Where the public gets this corpus; printed when it is not found."""
    source_language: str = "en"
    """Language code of the source, for reports."""
    target_language: str = "de"
    """Language code of the target, for reports."""
    max_length: int = 128
    """Longest training sentence in pieces, either side; longer pairs are filtered out and counted."""
    max_ratio: float = 4.0
    """Largest ratio of lengths in pieces, longer over shorter; pairs of at most 5 pieces a side are exempt."""
    store: str = ""
    """Folder of the token store; empty: `store` inside the workdir."""
    buckets: int = 6
    """Number of static batch shapes; each costs one compilation."""
    length_multiple: int = 8
    """Bucket boundaries are multiples of this."""


@dataclass(frozen=True)
class VocabConfig:
    """SentencePiece vocabulary."""

    path: str = ""
    """Folder of a model or a store whose vocabulary is taken as it is; empty: one is trained, as below."""
    size: int = 8000
    """Pieces, the four special ids included."""
    algorithm: Literal["bpe", "unigram"] = "bpe"
    """Segmentation algorithm."""
    joint: bool = True
    """One vocabulary for both languages (paper, section 4.1)."""
    character_coverage: float = 1.0
    """Share of characters that get a piece; 0.9995 for Japanese or Chinese."""


@dataclass(frozen=True)
class ModelConfig:
    """Encoder and decoder. Defaults are the paper's base model (section 4.1)."""

    kind: Literal["nat", "autoregressive"] = "nat"
    """All frames at once, or token by token (the teacher): a decoder with causal mask."""
    encoder_layers: int = 6
    decoder_layers: int = 6
    width: int = 512
    """D, model width."""
    feed_forward: int = 2048
    """F, inner width of the feed-forward blocks."""
    heads: int = 8
    """H, attention heads."""
    dropout: float = 0.3
    """Dropout on embeddings and on the output of each block (paper: 0.3 En-De and En-Ro, 0.1 Ja-En)."""
    activation: Literal["gelu", "relu"] = "gelu"
    norm: Literal["pre", "post"] = "post"
    """Layer normalisation before each block, or after it (official release)."""
    positions: Literal["learned", "sinusoidal"] = "learned"
    max_positions: int = 1024
    """Length of the learned position tables: frames and source pieces may not be longer."""
    initializer: Literal["bert", "xavier"] = "bert"
    """bert: normal with standard deviation 0.02 (official release); xavier: uniform by fan-in and fan-out."""
    share_embeddings: bool = True
    """One table for source and output; needs a joint vocabulary."""
    upsampling: Literal["gaussian", "linear"] = "gaussian"
    """For losses without length: Gaussian soft copy (official release), or a linear split (integer ratios)."""
    ratio: float = 3.0
    """λ, frames per source piece, for losses without length."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Compute dtype; parameters, losses and accumulation stay float32."""

    @classmethod
    def base(cls, **changes: Any) -> "ModelConfig":
        """The paper's base model: 6+6 layers, 512/2048, 8 heads."""
        return cls(**changes)

    @classmethod
    def big(cls, **changes: Any) -> "ModelConfig":
        """The paper's big model: 6+6 layers, 1024/4096, 16 heads."""
        return cls(**{**dict(width=1024, feed_forward=4096, heads=16), **changes})

    @classmethod
    def base_12_1(cls, **changes: Any) -> "ModelConfig":
        """Base with a deep encoder and a shallow decoder, 12+1 layers: the fast autoregressive baseline (section 4)."""
        return cls.base(**{**dict(encoder_layers=12, decoder_layers=1), **changes})

    @classmethod
    def small(cls, **changes: Any) -> "ModelConfig":
        """4+4 layers, 256/1024, 4 heads, pre-norm: for corpora of about 100k pairs."""
        preset = dict(encoder_layers=4, decoder_layers=4, width=256, feed_forward=1024, heads=4, dropout=0.2,
                      norm="pre", initializer="xavier", positions="sinusoidal")  # fmt: skip
        return cls(**{**preset, **changes})

    @classmethod
    def tiny(cls, **changes: Any) -> "ModelConfig":
        """3+3 layers, 192/768, 4 heads, pre-norm: for about 30k pairs, trainable on two CPU cores."""
        preset = dict(encoder_layers=3, decoder_layers=3, width=192, feed_forward=768, heads=4, dropout=0.15,
                      norm="pre", initializer="xavier", positions="sinusoidal")  # fmt: skip
        return cls(**{**preset, **changes})

    @classmethod
    def tiny_deep(cls, **changes: Any) -> "ModelConfig":
        """Tiny with a deep encoder and a shallow decoder, 6+1 layers."""
        return cls.tiny(**{**dict(encoder_layers=6, decoder_layers=1), **changes})


@dataclass(frozen=True)
class ObjectiveConfig:
    """What is minimised."""

    loss: Literal["ctc", "axe", "ce"] = "ctc"
    """Connectionist temporal classification over latent alignments, aligned cross-entropy of the best monotone
    alignment, or cross-entropy by position (vanilla NAT). The last two need a length."""
    skip_target_penalty: float = 2.0
    """For axe: δ, by which the cost of a label that no frame emits is multiplied. Ghazvininejad et al. (2020) try 1 to
    5 on each data set; 2 is what a public reimplementation (m3yrin/aligned-cross-entropy) uses."""
    label_smoothing: float = 0.01
    """ε of the smoothing towards the uniform distribution, real positions only (paper, section 4.1: 0.01)."""
    normalizer: Literal["token_mean", "sentence_mean"] = "token_mean"
    """Σ loss ÷ Σ labels, or the mean over sentences of loss ÷ labels (official release)."""
    target_eos: bool = False
    """End targets in eos, as the official release does for CTC; the paper's preset does not."""
    length_weight: float = 0.1
    """Weight of the length classifier's cross-entropy, for losses with a length (official release: 0.1)."""
    length_range: int = 32
    """The length classifier predicts N - S in [-length_range, length_range]."""

    @property
    def needs_length(self) -> bool:
        """Whether frames are counted by the target's length, not by the source's; `nat` models have to predict it."""
        return self.loss != "ctc"


@dataclass(frozen=True)
class TrainingConfig:
    """Optimisation, evaluation and checkpoints."""

    steps: int = 300_000
    """Updates in all."""
    batch_frames: int = 131_072
    """Decoder frames (padding included) in an update, about constant over the buckets."""
    learning_rate: float = 5e-4
    """Peak rate, reached at the end of the warm-up."""
    warmup_steps: int = 10_000
    """Linear warm-up, then inverse square root of the step."""
    cooldown_steps: int = 0
    """Linear decay to zero over the last updates; 0: none."""
    adam_b1: float = 0.9
    adam_b2: float = 0.999
    adam_epsilon: float = 1e-6
    weight_decay: float = 0.01
    """Decoupled weight decay, on matrices only."""
    clip_norm: float = 2.4
    """Largest global norm of the gradient (official release: 2.4)."""
    seed: int = 1
    """Seed of parameters, data order, dropout."""
    log_every: int = 50
    """Updates between records in metrics.jsonl."""
    eval_every: int = 1000
    """Updates between validations (paper: 1,000)."""
    eval_sentences: int = 1000
    """Validation sentences that are translated for BLEU."""
    save_every: int = 1000
    """Updates between the checkpoints that are kept and averaged. Each validation writes one too, which the next
    checkpoint removes."""
    keep_last: int = 5
    """Latest checkpoints kept, and averaged at the end (paper: last 5)."""
    keep_best: int = 5
    """Checkpoints with the best validation BLEU kept, and averaged at the end (official release: best 5)."""


@dataclass(frozen=True)
class DecodingConfig:
    """Decoding."""

    batch_frames: int = 16_384
    """Decoder frames of the largest compiled batch; on CPU no batch has more than 8 rows."""
    max_source_length: int = 256
    """Longest source in pieces that is translated in one piece; longer lines are cut at words and rejoined."""
    length_candidates: int = 1
    """Lengths tried for losses with a length; the one with the best mean log-probability wins."""
    length_multiplier: float = 1.0
    """For losses with a length: predicted lengths are multiplied by this, and rounded. Models trained with axe may
    emit ε, and want some frames more than tokens (Ghazvininejad et al. 2020, who tune it)."""
    blank_penalty: float = 0.0
    """For losses without length: nats by which the blank must lead the best token to be emitted (more: longer)."""
    beam_size: int = 5
    """W, hypotheses a sentence of the autoregressive beam."""
    length_penalty: float = 1.0
    """Exponent of the length by which the autoregressive beam divides log-probabilities; 0: none."""
    max_length_ratio: float = 2.0
    """An autoregressive translation ends after ⌈max_length_ratio · S⌉ + 16 tokens at the latest."""


@dataclass(frozen=True)
class Config:
    """One run."""

    name: str
    data: DataConfig = field(default_factory=DataConfig)
    vocab: VocabConfig = field(default_factory=VocabConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    decoding: DecodingConfig = field(default_factory=DecodingConfig)


def configs_folder() -> Path:
    """Where the shipped configs lie: inside the installed package, or at the top of a checkout."""
    here = Path(__file__).parent
    return here / "configs" if (here / "configs").is_dir() else here.parent / "configs"


def shipped_configs() -> dict[str, Path]:
    """Name -> file of every config that ships with natjax."""
    return {p.stem: p for p in sorted(configs_folder().glob("*.py")) if not p.stem.startswith("_")}


def load_config(path: str | Path) -> Config:
    """Builds the config that a file describes.

    Args:
        path: a Python file with `get_config() -> Config`, or the name of a shipped config (`natjax configs`). A name
            is a name, whatever lies in the folder; a file is meant where there is a suffix or a folder.

    Raises:
        ConfigError: no such file or name, the file fails, or the values are impossible.
    """
    shipped = shipped_configs()
    file = shipped.get(str(path), Path(path))
    if not file.is_file():
        message = f"{path}: no such config file, nor one of natjax's ({', '.join(shipped)})"
        raise ConfigError(message + nearest(str(path), shipped))
    try:
        get_config = runpy.run_path(str(file)).get("get_config")
        config = get_config() if get_config else None
    except (Exception, SystemExit) as error:  # a config is the user's program: whatever ends it is theirs to mend
        hint = "; return a Config instead of leaving the program" if isinstance(error, SystemExit) else ""
        if "unexpected keyword argument" in str(error):
            hint = nearest(str(error).split("'")[-2], [name.split(".")[-1] for name, _ in leaves(Config(""))])
        raise ConfigError(f"{file}: failed with {type(error).__name__}: {one_line(error)}{hint}") from error
    if get_config is None:
        raise ConfigError(f"{file}: has no function get_config(); see `natjax configs` for examples")
    if not isinstance(config, Config):
        raise ConfigError(f"{file}: get_config() must return natjax.config.Config, not {type(config).__name__}")
    config = build(Config, dataclasses.asdict(config), str(file))  # Python does not check the types of fields
    validate(config)
    return config


def validate(config: Config) -> None:
    """Checks what types do not tell. Raises ConfigError naming the field."""
    for name, value in leaves(config):
        if type(value) in (int, float):
            least, most = _RANGES.get(name, (0, _MOST_FLOAT))
            if not least <= value <= most:  # NaN is in no range
                raise ConfigError(f"{name}: must be from {least:,} to {most:,}, not {value}")
    data, model, objective, training = config.data, config.model, config.objective, config.training
    checks = [
        (model.width % model.heads == 0, "model.width: must be a multiple of model.heads"),
        (model.width % 2 == 0, "model.width: must be even"),
        (model.upsampling != "linear" or model.ratio == int(model.ratio),
         "model.ratio: model.upsampling=linear needs a whole number; use gaussian for ratios such as 2.5"),
        (model.dropout < 1, "model.dropout: must be less than 1"),
        (not model.share_embeddings or config.vocab.joint,
         "model.share_embeddings: needs a joint vocabulary; set --model.no-share-embeddings or --vocab.joint"),
        (objective.label_smoothing < 1, "objective.label_smoothing: must be less than 1"),
        (training.adam_b1 < 1 and training.adam_b2 < 1, "training.adam_b1, adam_b2: must be less than 1"),
        (max(training.save_every, training.eval_every) % min(training.save_every, training.eval_every) == 0,
         "training.save_every, eval_every: one must be a multiple of the other, so that checkpoints have scores"),
        (training.cooldown_steps <= training.steps, "training.cooldown_steps: more than training.steps; set it, too"),
        (data.max_length % data.length_multiple == 0,
         "data.max_length: must be a multiple of data.length_multiple"),
        (training.batch_frames >= (1 if objective.needs_length else model.ratio) * data.max_length,
         "training.batch_frames: smaller than one sentence of data.max_length pieces (at model.ratio for CTC)"),
        (model.kind == "nat" or (objective.loss == "ce" and objective.target_eos),
         "model.kind: autoregressive needs --objective.loss ce --objective.target-eos"),
        (config.decoding.length_candidates <= 2 * objective.length_range + 1,
         "decoding.length_candidates: more than objective.length_range allows"),
        (model.positions != "learned" or model.max_positions >= _longest(config),
         f"model.max_positions: {_longest(config)} positions are needed for the longest sentence "
         "(data.max_length, decoding.max_source_length)"),
    ]  # fmt: skip
    for fine, message in checks:
        if not fine:
            raise ConfigError(message)


_MOST, _MOST_FLOAT = 2**31 - 1, 1e30  # steps are counted in int32, float32 ends at 3e38
_COUNTS = (
    "training.steps training.warmup_steps training.log_every training.eval_every training.eval_sentences "
    "training.save_every training.keep_last training.keep_best"
)
_POSITIVE = "training.learning_rate training.adam_epsilon training.clip_norm"
_SHARES = "model.dropout objective.label_smoothing training.adam_b1 training.adam_b2"
_RANGES = {
    "data.max_length": (2, 65_536), "data.max_ratio": (1, _MOST_FLOAT), "data.buckets": (1, 1000),
    "data.length_multiple": (1, 65_536), "vocab.size": (8, 1_000_000), "vocab.character_coverage": (1e-30, 1),
    "model.encoder_layers": (1, 256), "model.decoder_layers": (1, 256), "model.width": (2, 32_768),
    "model.feed_forward": (1, 131_072), "model.heads": (1, 32_768), "model.max_positions": (1, 1_000_000),
    "model.ratio": (1, 100), "objective.length_range": (1, 4096), "objective.skip_target_penalty": (0.01, 1000),
    "training.seed": (0, 2**32 - 1), "decoding.length_multiplier": (0.1, 10),
    "training.cooldown_steps": (0, _MOST), "training.batch_frames": (1, 2**24), "decoding.batch_frames": (1, 2**24),
    "decoding.max_source_length": (8, 65_536), "decoding.length_candidates": (1, 128),
    "decoding.blank_penalty": (0, 100), "decoding.beam_size": (1, 1024), "decoding.length_penalty": (0, 10),
    "decoding.max_length_ratio": (0.1, 100),
    **dict.fromkeys(_COUNTS.split(), (1, _MOST)), **dict.fromkeys(_POSITIVE.split(), (1e-30, _MOST_FLOAT)),
    **dict.fromkeys(_SHARES.split(), (0, 1)),
}  # fmt: skip
"""Least and greatest value of each number; floats that are not named: 0 and `_MOST_FLOAT`. A seed has the 32 bits that
`jax.random.key` and dropout use; sizes end where any machine's memory does."""


def _longest(config: Config) -> int:
    """Most positions that the encoder or the decoder will be given."""
    source = max(config.data.max_length, config.decoding.max_source_length)
    if config.model.kind == "autoregressive":
        return max(source, target_limit(source, config.decoding.max_length_ratio))
    if config.objective.needs_length:
        return length_limit(source, config.objective.length_range, config.decoding.length_multiplier)
    return frame_count(source, config.model.ratio)


def to_json(config: Config) -> str:
    """The config as indented JSON, every field written out."""
    return json.dumps(dataclasses.asdict(config), indent=2, ensure_ascii=False) + "\n"


def from_json(text: str, where: str = "config.json") -> Config:
    """Reads what `to_json` wrote.

    Raises:
        ConfigError: not JSON, an unknown field (a file of a newer natjax), or a value of the wrong type.
    """
    try:
        tree = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{where}: not valid JSON ({one_line(error)}); restore it from a backup") from None
    config = build(Config, tree, where)
    validate(config)
    return config


def differing_fields(old: Config, new: Config) -> list[str]:
    """Lines `section.field: old -> new` for every field that differs."""
    new_values = dict(leaves(new))
    return [f"{name}: {value!r} -> {new_values[name]!r}" for name, value in leaves(old) if value != new_values[name]]


def expand(path: str) -> str:
    """Expands `$VARIABLES` and `~`.

    Raises:
        ConfigError: a variable is not set.
    """
    expanded = os.path.expanduser(os.path.expandvars(path))  # noqa: PTH111
    if "$" in expanded:
        variable = expanded[expanded.index("$") :].split("/")[0]
        raise ConfigError(f"{path}: the environment variable {variable} is not set; export {variable[1:]}=<folder>")
    return expanded
