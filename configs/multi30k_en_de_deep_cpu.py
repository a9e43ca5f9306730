"""Multi30k English to German, the fast autoregressive baseline, 6+1 layers, for two CPU cores.

As multi30k_en_de_teacher_cpu, but for its layers and its updates. The teacher's published result comes from 4,000
updates of 133 an epoch, before commit 4ec232b; here 3,000 of 94 an epoch see as many sentences: 32 epochs for 30.

export NATJAX_DATA=<folder that holds multi30k/>
natjax train configs/multi30k_en_de_deep_cpu.py --workdir runs/multi30k_en_de_deep
natjax evaluate --model runs/multi30k_en_de_deep \
        --source $NATJAX_DATA/multi30k/test_2016_flickr.en --reference $NATJAX_DATA/multi30k/test_2016_flickr.de

What to expect: not measured yet.
"""

from dataclasses import replace

from natjax.config import Config, ModelConfig, load_config


def get_config() -> Config:
    """6+1 layers of width 192."""
    teacher = load_config("multi30k_en_de_teacher_cpu")
    model = ModelConfig.tiny_deep(kind="autoregressive", dropout=teacher.model.dropout)
    training = replace(teacher.training, steps=3000, cooldown_steps=1900)
    return replace(teacher, name="multi30k_en_de_deep_cpu", model=model, training=training)
