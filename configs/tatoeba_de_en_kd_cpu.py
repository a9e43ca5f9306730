"""Tatoeba German to English, the student, for two CPU cores: tatoeba_de_en_cpu on a teacher's translations.

export NATJAX_DATA=<folder that holds tatoeba_deen/> NATJAX_DISTILLED=$PWD/runs/tatoeba_de_en_cpu/distilled
launch/distill.sh tatoeba_de_en_teacher_cpu tatoeba_de_en_kd_cpu runs/tatoeba_de_en_cpu \
        $NATJAX_DATA/tatoeba_deen/train.de $NATJAX_DATA/tatoeba_deen/train.en        # teacher, distillation, student
natjax evaluate --model runs/tatoeba_de_en_cpu/student \
        --source $NATJAX_DATA/tatoeba_deen/test2000.de --reference $NATJAX_DATA/tatoeba_deen/test2000.en

Or the student alone, here with its teacher's vocabulary and encoder to begin with:

natjax train tatoeba_de_en_kd_cpu --workdir runs/tatoeba_de_en_cpu/warm \
        --vocab.path runs/tatoeba_de_en_cpu/teacher --training.encoder-from runs/tatoeba_de_en_cpu/teacher

What to expect: not measured yet.
"""

from dataclasses import replace

from natjax.config import Config, load_config


def get_config() -> Config:
    """One field differs from tatoeba_de_en_cpu: the training targets."""
    raw = load_config("tatoeba_de_en_cpu")
    data = replace(raw.data, train_target="$NATJAX_DISTILLED/train.target")
    return replace(raw, name="tatoeba_de_en_kd_cpu", data=data)
