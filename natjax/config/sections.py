"""The sections of a config: every field with its default and where that comes from."""

from dataclasses import dataclass, field, replace
from typing import Any, Literal


@dataclass(frozen=True)
class DataConfig:
    """Text, and how it becomes batches of few static shapes."""

    root: str = ""
    """Folder of the text files below; `$NATJAX_DATA` and other variables are expanded."""
    train_source: str = "train.source"
    """Training source text, one sentence a line."""
    train_target: str = "train.target"
    """Training target text; name a distilled file here to train on it. Paths outside `root` and variables do, too."""
    train_scores: str = ""
    """A score for each training pair, one a line, of Bicleaner for example; more is better. Empty: none."""
    minimum_score: float = 0.0
    """Training pairs of a lower score are left out, and counted. Needs `train_scores`."""
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

    def exchanged(self) -> "DataConfig":
        """The same text, translated the other way round."""
        return replace(
            self,
            train_source=self.train_target,
            train_target=self.train_source,
            valid_source=self.valid_target,
            valid_target=self.valid_source,
            source_language=self.target_language,
            target_language=self.source_language,
        )


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
    """One vocabulary for both languages (official release, which shares one table of vectors)."""
    character_coverage: float = 1.0
    """Share of characters that get a piece; 0.9995 for Japanese or Chinese."""


@dataclass(frozen=True)
class ModelConfig:
    """Encoder and decoder. Defaults are the paper's base model (appendix A)."""

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
    latents: Literal["none", "vae"] = "none"
    """One Gaussian vector per source piece, added to what the upsampling takes (paper, section 3.2)."""
    latent_width: int = 8
    """Z, dimensions of a latent vector (paper, appendix A)."""
    posterior_layers: int = 3
    """Layers of the posterior's target encoder, and of its source-side decoder (paper, appendix A: 3)."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Compute dtype; parameters, losses and accumulation stay float32."""

    @classmethod
    def base(cls, **changes: Any) -> "ModelConfig":
        """The paper's base model: 6+6 layers, 512/2048, 8 heads."""
        return cls(**changes)

    @classmethod
    def big(cls, **changes: Any) -> "ModelConfig":
        """Transformer big: 6+6 layers, 1024/4096, 16 heads. The paper's own big model has 8 heads (appendix A)."""
        return cls(**{**dict(width=1024, feed_forward=4096, heads=16), **changes})

    @classmethod
    def base_12_1(cls, **changes: Any) -> "ModelConfig":
        """Base with a deep encoder and a shallow decoder, 12+1 layers: the fast AT baseline (section 4.1)."""
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
    glancing: Literal["none", "rnd", "glat"] = "none"
    """Show the decoder some target tokens: as many as a first pass gets wrong ask for (glat), or at random (rnd)."""
    glancing_distance: Literal["hamming", "levenshtein"] = "hamming"
    """For glat: frames of the first pass that differ from the alignment (official release), or edits of its text."""
    glancing_ratio: float = 0.5
    """f: how many tokens are shown per unit of distance (paper, appendix A; official release: 0.5)."""
    glancing_ratio_end: float | None = None
    """f at the end of training, reached linearly; None: f stays (official release)."""
    glancing_random: Literal["uniform", "scaled"] = "uniform"
    """For rnd: every number that leaves one place hidden is as likely (paper, section 3.4: l ~ U|y|); or as many as
    glat shows at a distance that is uniform on 0 … T (official release)."""
    glancing_sampler: Literal["poisson", "deterministic"] = "poisson"
    """The number shown: drawn from a Poisson distribution (paper, equation 5), or its mean rounded down."""
    glancing_blanks: bool = True
    """Show blanks as well as tokens (official release)."""
    glancing_dropout: Literal["fresh", "same", "none"] = "fresh"
    """The first pass's dropout: of its own (official release), that of the second pass, or none."""
    free_bits: float = 1.0
    """Nats of KL divergence per source piece that cost nothing (official release: 1.0)."""
    free_bits_hold: float = 0.25
    """Share of the run until which the free bits stay; then they fall linearly. The official release's rule for runs of
    up to 36,000 updates; its own 300,000 updates: 0.03."""
    free_bits_end: float = 0.5
    """Share of the run at which no bit is free any more (official release's rule, as above; its own run: 0.06)."""
    label_smoothing: float = 0.01
    """ε of the smoothing towards the uniform distribution, real positions only (paper, appendix A: 0.01)."""
    normalizer: Literal["token_mean", "sentence_mean"] = "token_mean"
    """Σ loss ÷ Σ labels, or the mean over sentences of loss ÷ labels (official release)."""
    target_eos: bool = False
    """End targets in eos, as the official release does for CTC; the paper's preset does not."""
    length_weight: float = 0.1
    """Weight of the length classifier's cross-entropy, for losses with a length (official release: 0.1)."""
    length_range: int = 32
    """The length classifier predicts N - S in [-length_range, length_range]."""

    def __post_init__(self) -> None:
        """One way to say that f stays: configs that were saved with the same f twice equal those that name it once."""
        if self.glancing_ratio_end == self.glancing_ratio:
            object.__setattr__(self, "glancing_ratio_end", None)

    @classmethod
    def paper(cls, **changes: Any) -> "ObjectiveConfig":
        """As the paper's text has it (section 3.4, appendix A), for runs of 300,000 updates.

        Where it says nothing, the ordinary way: no eos in the targets, the mean over tokens; and the release's free
        bits.
        """
        preset = dict(label_smoothing=0.01, normalizer="token_mean", target_eos=False,
                      glancing_distance="levenshtein", glancing_random="uniform", free_bits_hold=0.03,
                      free_bits_end=0.06)  # fmt: skip
        return cls(**{**preset, **changes})

    @classmethod
    def release(cls, **changes: Any) -> "ObjectiveConfig":
        """As the official release's command and code have it, for runs of 300,000 updates."""
        preset = dict(label_smoothing=0.1, normalizer="sentence_mean", target_eos=True, glancing_distance="hamming",
                      glancing_random="scaled")  # fmt: skip
        return cls.paper(**{**preset, **changes})

    @property
    def has_glancing_ratio(self) -> bool:
        """Whether f decides how many tokens are shown."""
        return self.glancing == "glat" or (self.glancing == "rnd" and self.glancing_random == "scaled")

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
    encoder_from: str = ""
    """Workdir of a model whose embeddings and encoder a new run starts from, a teacher's: same vocabulary, same encoder
    section. fairseq issue 2187 reports that it helps on a small corpus; not measured here yet."""
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

    @classmethod
    def paper(cls, **changes: Any) -> "TrainingConfig":
        """As the paper's text has it (appendix A): validation and a checkpoint each 1,000 updates, the last 5 averaged.

        Where it says nothing (rate, warm-up, Adam, clipping), the official release.
        """
        preset = dict(steps=300_000, weight_decay=0.01, eval_every=1000, save_every=1000, keep_last=5)
        return cls(**{**preset, **changes})

    @classmethod
    def release(cls, **changes: Any) -> "TrainingConfig":
        """As the official release's command has it: each 5,000 updates, the last 10 kept, the best 5 averaged."""
        preset = dict(eval_every=5000, save_every=5000, keep_last=10, keep_best=5)
        return cls.paper(**{**preset, **changes})


@dataclass(frozen=True)
class DecodingConfig:
    """Decoding."""

    batch_frames: int = 16_384
    """Decoder frames of the largest compiled batch; on CPU no batch has more than 8 rows (autoregressive: 32)."""
    max_source_length: int = 256
    """Longest source in pieces that is translated in one piece; longer lines are cut at words and rejoined."""
    length_candidates: int = 1
    """Lengths tried for losses with a length; the one with the best mean log-probability wins."""
    length_multiplier: float = 1.0
    """For losses with a length: predicted lengths are multiplied by this, and rounded. Models trained with axe may
    emit ε, and want some frames more than tokens (Ghazvininejad et al. 2020, who tune it)."""
    blank_penalty: float = 0.0
    """For losses without length: nats by which the blank must lead the best token to be emitted (more: longer)."""
    latent_temperature: float = 0.0
    """For models with latents: standard deviations of the prior's draws; 0: its mean (official release)."""
    ctc_beam_size: int = 20
    """W, prefixes of the search over CTC's frames (paper, Table 3)."""
    ctc_top_k: int = 20
    """Tokens of each frame that this search looks at, and the blank (official release: as many as the beam)."""
    lm: str = ""
    """Folder of the search's language model (`natjax lm`); empty: `lm` inside the workdir, if it is there."""
    lm_weight: float = 0.0
    """α, by which the language model's log-probabilities are multiplied; 0: without one. `natjax tune` finds it."""
    length_bonus: float = 0.0
    """β, added for each piece of a hypothesis: a language model prefers short ones. `natjax tune` finds it."""
    length_bonus_form: Literal["linear", "log"] = "linear"
    """linear: β·|y|, as the official release; log: β·log|y|, as the paper's equation 6."""
    score_eos: bool = False
    """Whether the language model also judges the sentence's end; the official release does not."""
    teacher: str = ""
    """Workdir of the autoregressive model that chooses in noisy parallel decoding; empty: `teacher` in the workdir."""
    npd_samples: int = 5
    """Latents tried in noisy parallel decoding, the prior's mean among them (paper, Table 3)."""
    npd_temperature: float = 0.1
    """Standard deviations of the others' draws (official release)."""
    npd_lengths: int = 5
    """Lengths tried in noisy parallel decoding, for losses with a length; all there are where these are fewer."""
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
