"""What values a config may have, beyond what types tell."""

from natjax.config.sections import Config
from natjax.errors import ConfigError
from natjax.frames import frame_count, length_limit, target_limit
from natjax.typed import leaves


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
        (data.minimum_score == 0 or data.train_scores, "data.minimum_score: needs data.train_scores; set it, too"),
        (data.max_length % data.length_multiple == 0,
         "data.max_length: must be a multiple of data.length_multiple"),
        (training.batch_frames >= (1 if objective.needs_length else model.ratio) * data.max_length,
         "training.batch_frames: smaller than one sentence of data.max_length pieces (at model.ratio for CTC)"),
        (model.kind == "nat" or (objective.loss == "ce" and objective.target_eos),
         "model.kind: autoregressive needs --objective.loss ce --objective.target-eos"),
        (model.kind == "nat" or (model.latents == "none" and objective.glancing == "none"),
         "model.latents, objective.glancing: are for model.kind=nat; set both to none"),
        (objective.free_bits_hold <= objective.free_bits_end,
         "objective.free_bits_hold: must not come after objective.free_bits_end"),
        (config.decoding.length_candidates <= 2 * objective.length_range + 1,
         "decoding.length_candidates: more than objective.length_range allows"),
        (model.positions != "learned" or model.max_positions >= _longest(config),
         f"model.max_positions: {_longest(config)} positions are needed for the longest sentence "
         "(data.max_length, decoding.max_source_length)"),
    ]  # fmt: skip
    for fine, message in checks:
        if not fine:
            raise ConfigError(message)


def unused_fields(config: Config) -> dict[str, str]:
    """Dotted names of fields of model and objective that do nothing with the config's techniques, and why not."""
    model, objective = config.model, config.objective
    nat, glancing = model.kind == "nat", objective.glancing
    without = [
        (nat and not objective.needs_length, f"objective.loss={objective.loss} has no upsampling ratio" if nat else
         "model.kind=autoregressive has no upsampling", "model.upsampling model.ratio"),
        (model.latents != "none", "model.latents=none", "model.latent_width model.posterior_layers "
         "objective.free_bits objective.free_bits_hold objective.free_bits_end decoding.latent_temperature"),
        (objective.loss == "axe", f"objective.loss={objective.loss}", "objective.skip_target_penalty"),
        (nat and objective.needs_length, f"objective.loss={objective.loss} has no length to predict" if nat else
         "model.kind=autoregressive predicts no length", "objective.length_weight objective.length_range"),
        (glancing != "none", "objective.glancing=none", "objective.glancing_blanks objective.glancing_dropout"),
        (glancing == "glat", f"objective.glancing={glancing}", "objective.glancing_distance"),
        (glancing == "rnd", f"objective.glancing={glancing}", "objective.glancing_random"),
        (objective.has_glancing_ratio, f"objective.glancing={glancing} without a ratio", "objective.glancing_ratio "
         "objective.glancing_ratio_end objective.glancing_sampler"),
        (model.positions == "learned", f"model.positions={model.positions}", "model.max_positions"),
    ]  # fmt: skip
    return {name: reason for used, reason, names in without if not used for name in names.split()}


_MOST, _MOST_FLOAT = 2**31 - 1, 1e30  # steps are counted in int32, float32 ends at 3e38
_COUNTS = (
    "training.steps training.warmup_steps training.log_every training.eval_every training.eval_sentences "
    "training.save_every training.keep_last training.keep_best"
)
_POSITIVE = "training.learning_rate training.adam_epsilon training.clip_norm"
_SHARES = (
    "objective.free_bits_hold objective.free_bits_end model.dropout objective.label_smoothing training.adam_b1 "
    "training.adam_b2"
)
_RANGES = {
    "data.max_length": (2, 65_536), "data.max_ratio": (1, _MOST_FLOAT), "data.buckets": (1, 1000),
    "data.length_multiple": (1, 65_536), "vocab.size": (8, 1_000_000), "vocab.character_coverage": (1e-30, 1),
    "model.encoder_layers": (1, 256), "model.decoder_layers": (1, 256), "model.width": (2, 32_768),
    "model.feed_forward": (1, 131_072), "model.heads": (1, 32_768), "model.max_positions": (1, 1_000_000),
    "model.latent_width": (1, 4096), "model.posterior_layers": (1, 256), "objective.free_bits": (0, 1000),
    "objective.glancing_ratio": (0, 100), "objective.glancing_ratio_end": (0, 100),
    "decoding.latent_temperature": (0, 100), "model.ratio": (1, 100), "objective.length_range": (1, 4096),
    "objective.skip_target_penalty": (0.01, 1000), "training.seed": (0, 2**32 - 1),
    "decoding.length_multiplier": (0.1, 10),
    "training.cooldown_steps": (0, _MOST), "training.batch_frames": (1, 2**24), "decoding.batch_frames": (1, 2**24),
    "decoding.max_source_length": (8, 65_536), "decoding.length_candidates": (1, 128),
    "decoding.blank_penalty": (0, 100), "decoding.beam_size": (1, 1024), "decoding.length_penalty": (0, 10),
    "decoding.max_length_ratio": (0.1, 100), "decoding.ctc_beam_size": (1, 1024), "decoding.ctc_top_k": (1, 1024),
    "decoding.lm_weight": (0, 100), "decoding.length_bonus": (-100, 100), "decoding.npd_samples": (1, 128),
    "decoding.npd_temperature": (0, 100), "decoding.npd_lengths": (1, 128),
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
