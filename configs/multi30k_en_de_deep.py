"""Multi30k English to German, the fast autoregressive baseline, 6+1 layers, for a GPU.

As multi30k_en_de_teacher, but for its layers.

export NATJAX_DATA=<folder that holds multi30k/>
natjax train multi30k_en_de_deep --workdir runs/multi30k_full/deep
natjax evaluate --model runs/multi30k_full/deep \
        --source $NATJAX_DATA/multi30k/test_2016_flickr.en --reference $NATJAX_DATA/multi30k/test_2016_flickr.de

On a teacher's translations (docs/distillation.md):

natjax train multi30k_en_de_deep --workdir runs/multi30k_full/deep_kd \
        --data.train-target $PWD/runs/multi30k_full/distilled/train.target

What to expect: not measured yet.
"""

from dataclasses import replace

from natjax.config import Config, ModelConfig, load_config


def get_config() -> Config:
    """6+1 layers of width 192."""
    teacher = load_config("multi30k_en_de_teacher")
    model = ModelConfig.tiny_deep(kind="autoregressive", dropout=teacher.model.dropout)
    return replace(teacher, name="multi30k_en_de_deep", model=model)
