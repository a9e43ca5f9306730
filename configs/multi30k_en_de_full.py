"""Multi30k English to German, raw targets, CTC, for a GPU: multi30k_en_de with more and larger updates.

export NATJAX_DATA=<folder that holds multi30k/>
natjax train multi30k_en_de_full --workdir runs/multi30k_full/raw
natjax evaluate --model runs/multi30k_full/raw \
        --source $NATJAX_DATA/multi30k/test_2016_flickr.en --reference $NATJAX_DATA/multi30k/test_2016_flickr.de

What to expect: not measured yet.
"""

from dataclasses import replace

from natjax.config import Config, TrainingConfig, load_config


def get_config() -> Config:
    """About 5.6 times as many frames as on CPU, dropout 0.3; the last 60% of the updates cool down."""
    small = load_config("multi30k_en_de")
    training: TrainingConfig = replace(
        small.training, steps=12_000, batch_frames=12_288, warmup_steps=1000, cooldown_steps=7200, eval_every=500,
        save_every=500,
    )  # fmt: skip
    return replace(small, name="multi30k_en_de_full", model=replace(small.model, dropout=0.3), training=training)
