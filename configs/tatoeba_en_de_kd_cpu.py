"""Tatoeba English to German, the student, for two CPU cores: tatoeba_en_de_cpu on a teacher's translations.

export NATJAX_DATA=<folder that holds tatoeba_deen/> NATJAX_DISTILLED=$PWD/runs/tatoeba_en_de_cpu/distilled
launch/distill.sh tatoeba_en_de_teacher_cpu tatoeba_en_de_kd_cpu runs/tatoeba_en_de_cpu \
        $NATJAX_DATA/tatoeba_deen/train.en $NATJAX_DATA/tatoeba_deen/train.de        # teacher, distillation, student
natjax evaluate --model runs/tatoeba_en_de_cpu/student \
        --source $NATJAX_DATA/tatoeba_deen/test2000.en --reference $NATJAX_DATA/tatoeba_deen/test2000.de

Or the student alone, here with its teacher's vocabulary and encoder to begin with:

natjax train tatoeba_en_de_kd_cpu --workdir runs/tatoeba_en_de_cpu/warm \
        --vocab.path runs/tatoeba_en_de_cpu/teacher --training.encoder-from runs/tatoeba_en_de_cpu/teacher

What to expect: not measured yet.
"""

from dataclasses import replace

from natjax.config import Config, load_config


def get_config() -> Config:
    """One field differs from tatoeba_en_de_cpu: the training targets."""
    raw = load_config("tatoeba_en_de_cpu")
    data = replace(raw.data, train_target="$NATJAX_DISTILLED/train.target")
    return replace(raw, name="tatoeba_en_de_kd_cpu", data=data)
