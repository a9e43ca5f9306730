"""Tatoeba German to English, raw targets, CTC: for two CPU cores.

export NATJAX_DATA=<folder that holds tatoeba_deen/>
natjax train tatoeba_de_en_cpu --workdir runs/tatoeba_de_en_cpu/raw
natjax evaluate --model runs/tatoeba_de_en_cpu/raw \
        --source $NATJAX_DATA/tatoeba_deen/test2000.de --reference $NATJAX_DATA/tatoeba_deen/test2000.en

What to expect: not measured yet.
"""

from dataclasses import replace

from natjax.config import Config, ModelConfig, TrainingConfig, VocabConfig, load_config


def get_config() -> Config:
    """3+3 layers of width 192, fewer pieces, smaller and fewer updates, of which the last 60% cool down."""
    whole = load_config("tatoeba_de_en")
    training: TrainingConfig = replace(
        whole.training,
        steps=3500,
        batch_frames=6144,
        warmup_steps=500,
        cooldown_steps=2100,
        eval_every=250,
        save_every=250,
    )
    return replace(
        whole,
        name="tatoeba_de_en_cpu",
        vocab=VocabConfig(size=6000),
        model=ModelConfig.tiny(ratio=whole.model.ratio, dropout=0.2),
        training=training,
    )
