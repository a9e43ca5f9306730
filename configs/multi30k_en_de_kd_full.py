"""Multi30k English to German, the student, for a GPU: multi30k_en_de_full on a teacher's translations.

export NATJAX_DATA=<folder that holds multi30k/> NATJAX_DISTILLED=$PWD/runs/multi30k_full/distilled
launch/distill.sh multi30k_en_de_teacher multi30k_en_de_kd_full runs/multi30k_full \
        $NATJAX_DATA/multi30k/train.en $NATJAX_DATA/multi30k/train.de        # teacher, distillation, student
natjax evaluate --model runs/multi30k_full/student \
        --source $NATJAX_DATA/multi30k/test_2016_flickr.en --reference $NATJAX_DATA/multi30k/test_2016_flickr.de

Or the student alone, once its targets are there:

natjax train multi30k_en_de_kd_full --workdir runs/multi30k_full/student

What to expect: not measured yet.
"""

from dataclasses import replace

from natjax.config import Config, load_config


def get_config() -> Config:
    """One field differs from multi30k_en_de_full: the training targets."""
    raw = load_config("multi30k_en_de_full")
    data = replace(raw.data, train_target="$NATJAX_DISTILLED/train.target")
    return replace(raw, name="multi30k_en_de_kd_full", data=data)
