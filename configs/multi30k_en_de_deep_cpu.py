"""As multi30k_en_de_teacher_cpu with a deep encoder and a shallow decoder, 6+1: the fast autoregressive baseline.

export NATJAX_DATA=<folder that holds multi30k/>
natjax train configs/multi30k_en_de_deep_cpu.py --workdir runs/multi30k_en_de_deep
natjax evaluate --model runs/multi30k_en_de_deep \
        --source $NATJAX_DATA/multi30k/test_2016_flickr.en --reference $NATJAX_DATA/multi30k/test_2016_flickr.de
"""

from dataclasses import replace

from natjax.config import Config, ModelConfig, load_config


def get_config() -> Config:
    """6+1 layers of width 192."""
    teacher = load_config("multi30k_en_de_teacher_cpu")
    model = ModelConfig.tiny_deep(kind="autoregressive", dropout=teacher.model.dropout)
    training = replace(teacher.training, steps=3000, cooldown_steps=1900)
    return replace(teacher, name="multi30k_en_de_deep_cpu", model=model, training=training)
