"""Tatoeba German to English: the autoregressive teacher, for two CPU cores.

export NATJAX_DATA=<folder that holds tatoeba_deen/>
natjax train tatoeba_de_en_teacher_cpu --workdir runs/tatoeba_de_en_cpu/teacher
natjax evaluate --model runs/tatoeba_de_en_cpu/teacher \
        --source $NATJAX_DATA/tatoeba_deen/test2000.de --reference $NATJAX_DATA/tatoeba_deen/test2000.en

What to expect: not measured yet.
"""

from dataclasses import replace

from natjax.config import Config, ModelConfig, ObjectiveConfig, TrainingConfig, load_config


def get_config() -> Config:
    """The encoder of tatoeba_de_en_cpu; rate, warm-up and cool-down of multi30k_tok_en_de_teacher_cpu."""
    student = load_config("tatoeba_de_en_cpu")
    training: TrainingConfig = replace(
        student.training,
        steps=4000,
        learning_rate=3e-3,
        warmup_steps=500,
        cooldown_steps=2500,
        weight_decay=0.0,
    )
    return replace(
        student,
        name="tatoeba_de_en_teacher_cpu",
        model=ModelConfig.tiny(kind="autoregressive", dropout=0.2),
        objective=ObjectiveConfig(loss="ce", label_smoothing=0.1, target_eos=True),
        training=training,
    )
