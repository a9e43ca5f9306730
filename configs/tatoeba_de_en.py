"""Tatoeba German to English, raw targets, CTC: the medium benchmark, for a GPU.

export NATJAX_DATA=<folder that holds tatoeba_deen/>
natjax train tatoeba_de_en --workdir runs/tatoeba_de_en/raw
natjax evaluate --model runs/tatoeba_de_en/raw \
        --source $NATJAX_DATA/tatoeba_deen/test2000.de --reference $NATJAX_DATA/tatoeba_deen/test2000.en

What to expect: not measured yet.
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
    """157k short pairs; 4+4 layers of width 256, two frames a piece."""
    return Config(
        name="tatoeba_de_en",
        data=DataConfig(
            root="$NATJAX_DATA/tatoeba_deen",
            train_source="train.de",
            train_target="train.en",
            valid_source="valid.de",
            valid_target="valid.en",
            source_language="de",
            target_language="en",
            max_length=64,
            buckets=8,
            length_multiple=4,
            obtain="docs/recipes.md says where the pairs come from (tatoeba.org, CC BY 2.0 FR) and how they are split",
        ),
        vocab=VocabConfig(size=8000),
        model=ModelConfig.small(ratio=2.0, dtype="bfloat16"),
        objective=ObjectiveConfig(loss="ctc", label_smoothing=0.01),
        training=TrainingConfig(
            steps=15_000,
            batch_frames=24_576,
            learning_rate=2e-3,
            warmup_steps=1500,
            cooldown_steps=9000,
            adam_b2=0.98,
            adam_epsilon=1e-9,
            eval_every=500,
            save_every=500,
        ),
        decoding=DecodingConfig(max_source_length=128),
    )
