"""Multi30k English to German, raw targets, CTC: the small benchmark, for two CPU cores. For a GPU: multi30k_en_de_full.

export NATJAX_DATA=<folder that holds multi30k/>
natjax train configs/multi30k_en_de.py --workdir runs/multi30k_en_de
natjax evaluate --model runs/multi30k_en_de \
        --source $NATJAX_DATA/multi30k/test_2016_flickr.en --reference $NATJAX_DATA/multi30k/test_2016_flickr.de

What to expect on test_2016_flickr (files of benchmarks/results):

| | BLEU | chrF2++ | result |
|---|---|---|---|
| argmax | 32.3 | 58.3 | multi30k_en_de/nat_ctc_raw.json |

It was trained in 4,105 s on two cores.
"""

from natjax.config import (
    Config,
    DataConfig,
    DecodingConfig,
    ModelConfig,
    ObjectiveConfig,
    TrainingConfig,
    VocabConfig,
)


def get_config() -> Config:
    """Raw Multi30k, CTC, 3+3 layers of width 192, two frames a piece."""
    return Config(
        name="multi30k_en_de",
        data=DataConfig(
            root="$NATJAX_DATA/multi30k",
            train_source="train.en",
            train_target="train.de",
            valid_source="valid.en",
            valid_target="valid.de",
            max_length=80,
            buckets=8,
            length_multiple=4,
            obtain="get the raw text of task 1 from https://github.com/multi30k/dataset",
        ),
        vocab=VocabConfig(size=6000),
        model=ModelConfig.tiny(ratio=2.0, dropout=0.25, dtype="bfloat16"),
        objective=ObjectiveConfig(loss="ctc", label_smoothing=0.01),
        training=TrainingConfig(
            steps=4_250,
            batch_frames=6144,
            learning_rate=2e-3,
            warmup_steps=600,
            cooldown_steps=2500,
            adam_b2=0.98,
            adam_epsilon=1e-9,
            eval_every=250,
            save_every=250,
        ),
        decoding=DecodingConfig(max_source_length=128),
    )
