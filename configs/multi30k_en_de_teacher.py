"""Multi30k English to German, cased and raw: the autoregressive teacher, for a GPU.

export NATJAX_DATA=<folder that holds multi30k/>
natjax train multi30k_en_de_teacher --workdir runs/multi30k_full/teacher
natjax evaluate --model runs/multi30k_full/teacher \
        --source $NATJAX_DATA/multi30k/test_2016_flickr.en --reference $NATJAX_DATA/multi30k/test_2016_flickr.de

What to expect: not measured yet; multi30k_en_de_teacher_cpu has been.
"""

from dataclasses import replace

from natjax.config import Config, TrainingConfig, load_config


def get_config() -> Config:
    """multi30k_en_de_teacher_cpu with the updates of multi30k_tok_en_de_teacher and the last 60% cooling down."""
    small = load_config("multi30k_en_de_teacher_cpu")
    training: TrainingConfig = replace(
        small.training, steps=8000, batch_frames=10_240, warmup_steps=1000, cooldown_steps=4800
    )
    return replace(small, name="multi30k_en_de_teacher", model=replace(small.model, dropout=0.3), training=training)
