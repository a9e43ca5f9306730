"""Tatoeba German to English, the student, for a GPU: tatoeba_de_en on a teacher's translations.

export NATJAX_DATA=<folder that holds tatoeba_deen/> NATJAX_DISTILLED=$PWD/runs/tatoeba_de_en/distilled
launch/distill.sh tatoeba_de_en_teacher tatoeba_de_en_kd runs/tatoeba_de_en \
        $NATJAX_DATA/tatoeba_deen/train.de $NATJAX_DATA/tatoeba_deen/train.en        # teacher, distillation, student
natjax evaluate --model runs/tatoeba_de_en/student \
        --source $NATJAX_DATA/tatoeba_deen/test2000.de --reference $NATJAX_DATA/tatoeba_deen/test2000.en

Or the student alone, here with its teacher's vocabulary and encoder to begin with:

natjax train tatoeba_de_en_kd --workdir runs/tatoeba_de_en/warm \
        --vocab.path runs/tatoeba_de_en/teacher --training.encoder-from runs/tatoeba_de_en/teacher

What to expect: not measured yet.
"""

from dataclasses import replace

from natjax.config import Config, load_config


def get_config() -> Config:
    """One field differs from tatoeba_de_en: the training targets."""
    raw = load_config("tatoeba_de_en")
    data = replace(raw.data, train_target="$NATJAX_DISTILLED/train.target")
    return replace(raw, name="tatoeba_de_en_kd", data=data)
