"""Tatoeba English to German, the student, for a GPU: tatoeba_en_de on a teacher's translations.

export NATJAX_DATA=<folder that holds tatoeba_deen/> NATJAX_DISTILLED=$PWD/runs/tatoeba_en_de/distilled
launch/distill.sh tatoeba_en_de_teacher tatoeba_en_de_kd runs/tatoeba_en_de \
        $NATJAX_DATA/tatoeba_deen/train.en $NATJAX_DATA/tatoeba_deen/train.de        # teacher, distillation, student
natjax evaluate --model runs/tatoeba_en_de/student \
        --source $NATJAX_DATA/tatoeba_deen/test2000.en --reference $NATJAX_DATA/tatoeba_deen/test2000.de

Or the student alone, here with its teacher's vocabulary and encoder to begin with:

natjax train tatoeba_en_de_kd --workdir runs/tatoeba_en_de/warm \
        --vocab.path runs/tatoeba_en_de/teacher --training.encoder-from runs/tatoeba_en_de/teacher

What to expect: not measured yet.
"""

from dataclasses import replace

from natjax.config import Config, load_config


def get_config() -> Config:
    """One field differs from tatoeba_en_de: the training targets."""
    raw = load_config("tatoeba_en_de")
    data = replace(raw.data, train_target="$NATJAX_DISTILLED/train.target")
    return replace(raw, name="tatoeba_en_de_kd", data=data)
