"""Tatoeba Japanese to English, the student, for a GPU: tatoeba_ja_en on a teacher's translations.

export NATJAX_DATA=<folder that holds tatoeba_jaen/> NATJAX_DISTILLED=$PWD/runs/tatoeba_ja_en/distilled
launch/distill.sh tatoeba_ja_en_teacher tatoeba_ja_en_kd runs/tatoeba_ja_en \
        $NATJAX_DATA/tatoeba_jaen/train.ja $NATJAX_DATA/tatoeba_jaen/train.en        # teacher, distillation, student
natjax evaluate --model runs/tatoeba_ja_en/student \
        --source $NATJAX_DATA/tatoeba_jaen/test2000.ja --reference $NATJAX_DATA/tatoeba_jaen/test2000.en

Or the student alone, here with its teacher's vocabulary and encoder to begin with:

natjax train tatoeba_ja_en_kd --workdir runs/tatoeba_ja_en/warm \
        --vocab.path runs/tatoeba_ja_en/teacher --training.encoder-from runs/tatoeba_ja_en/teacher

What to expect: not measured yet.
"""

from dataclasses import replace

from natjax.config import Config, load_config


def get_config() -> Config:
    """One field differs from tatoeba_ja_en: the training targets."""
    raw = load_config("tatoeba_ja_en")
    data = replace(raw.data, train_target="$NATJAX_DISTILLED/train.target")
    return replace(raw, name="tatoeba_ja_en_kd", data=data)
