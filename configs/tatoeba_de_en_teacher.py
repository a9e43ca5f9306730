"""Tatoeba German to English: the autoregressive teacher, for a GPU.

export NATJAX_DATA=<folder that holds tatoeba_deen/>
natjax train tatoeba_de_en_teacher --workdir runs/tatoeba_de_en/teacher
natjax evaluate --model runs/tatoeba_de_en/teacher \
        --source $NATJAX_DATA/tatoeba_deen/test2000.de --reference $NATJAX_DATA/tatoeba_deen/test2000.en

What to expect: not measured yet.
"""

from dataclasses import replace

from natjax.config import Config, ModelConfig, ObjectiveConfig, TrainingConfig, load_config


def get_config() -> Config:
    """The encoder of tatoeba_de_en, and as many causal layers."""
    student = load_config("tatoeba_de_en")
    training: TrainingConfig = replace(
        student.training, steps=10_000, batch_frames=12_288, cooldown_steps=6000, weight_decay=0.0
    )
    return replace(
        student,
        name="tatoeba_de_en_teacher",
        model=ModelConfig.small(kind="autoregressive", dropout=0.3, dtype=student.model.dtype),
        objective=ObjectiveConfig(loss="ce", label_smoothing=0.1, target_eos=True),
        training=training,
    )
