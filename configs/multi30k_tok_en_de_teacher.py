"""Multi30k English to German, lower-cased and tokenized: the autoregressive Transformer-tiny of publications.

export NATJAX_DATA=<folder that holds multi30k_tok/>
natjax train configs/multi30k_tok_en_de_teacher.py --workdir runs/multi30k_tok_en_de_teacher
natjax evaluate --model runs/multi30k_tok_en_de_teacher --tokenize none \
        --source $NATJAX_DATA/multi30k_tok/test_2016_flickr.en \
        --reference $NATJAX_DATA/multi30k_tok/test_2016_flickr.de

What to expect: not measured yet; multi30k_tok_en_de_teacher_cpu has been.
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
    """The published recipe: 4+4 layers of width 128, about 8k target tokens an update, 8,000 updates."""
    return Config(
        name="multi30k_tok_en_de_teacher",
        data=DataConfig(
            root="$NATJAX_DATA/multi30k_tok",
            train_source="train.en",
            train_target="train.de",
            valid_source="valid.en",
            valid_target="valid.de",
            max_length=80,
            buckets=8,
            length_multiple=4,
            obtain="get task 1 as lc.norm.tok from https://github.com/multi30k/dataset",
        ),
        vocab=VocabConfig(size=8000),
        model=ModelConfig(
            kind="autoregressive",
            encoder_layers=4,
            decoder_layers=4,
            width=128,
            feed_forward=256,
            heads=4,
            dropout=0.3,
            activation="relu",
            norm="post",
            positions="sinusoidal",
            initializer="xavier",
        ),
        objective=ObjectiveConfig(loss="ce", label_smoothing=0.1, target_eos=True),
        training=TrainingConfig(
            steps=8000,
            batch_frames=10_240,
            learning_rate=5e-3,
            warmup_steps=2000,
            adam_b2=0.98,
            adam_epsilon=1e-8,
            weight_decay=0.0,
            eval_every=250,
            save_every=250,
            keep_last=10,
        ),
        decoding=DecodingConfig(max_source_length=128),
    )
