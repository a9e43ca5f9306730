"""Multi30k English to German, the student: as multi30k_en_de, on targets that a teacher has translated.

export NATJAX_DATA=<folder that holds multi30k/> NATJAX_DISTILLED=$PWD/runs/multi30k/distilled
launch/distill.sh multi30k_en_de_teacher_cpu multi30k_en_de_kd runs/multi30k \
        $NATJAX_DATA/multi30k/train.en $NATJAX_DATA/multi30k/train.de        # teacher, distillation, student
natjax evaluate --model runs/multi30k/student \
        --source $NATJAX_DATA/multi30k/test_2016_flickr.en --reference $NATJAX_DATA/multi30k/test_2016_flickr.de

Or step by step:

natjax train multi30k_en_de_teacher_cpu --workdir runs/multi30k/teacher
natjax distill --teacher runs/multi30k/teacher --source $NATJAX_DATA/multi30k/train.en \
        --target $NATJAX_DATA/multi30k/train.de --output $NATJAX_DISTILLED/train.target
natjax train multi30k_en_de_kd --workdir runs/multi30k/student

For two CPU cores, as multi30k_en_de; multi30k_en_de_kd_full is for a GPU. What to expect on test_2016_flickr (files of
benchmarks/results), with --model.dtype float32, which is faster on processors without matrix tiles:

| | BLEU | chrF2++ | result |
|---|---|---|---|
| argmax | 36.7 | 60.5 | multi30k_en_de/nat_ctc_kd.json |

It was trained in 9,469 s, mostly on one core, beside another training. The teacher's beam of 5 has 39.1.
"""

from dataclasses import replace

from natjax.config import Config, load_config


def get_config() -> Config:
    """One field differs from multi30k_en_de: the training targets."""
    raw = load_config("multi30k_en_de")
    data = replace(raw.data, train_target="$NATJAX_DISTILLED/train.target")
    return replace(raw, name="multi30k_en_de_kd", data=data)
