"""The embedded corpus, difficulty `demo`: what `natjax demo` trains, in some minutes on two CPU cores.

natjax train demo --workdir runs/demo                                 # CTC
natjax train demo --workdir runs/vanilla --objective.loss ce          # vanilla NAT on the same pairs
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
    """CTC, 2+2 layers of width 128; the blank is held back, without which words are lost where frames are few.

    How far was chosen on the validation split, over three seeds (benchmarks/results/embedded_demo/blank_penalty.json).
    """
    return Config(
        name="demo",
        data=DataConfig(embedded="demo", max_length=40, buckets=2, length_multiple=4),
        vocab=VocabConfig(size=800),
        model=ModelConfig.tiny(encoder_layers=2, decoder_layers=2, width=128, feed_forward=512, ratio=2.0, dropout=0.0),
        objective=ObjectiveConfig(loss="ctc", label_smoothing=0.0),
        training=TrainingConfig(
            steps=1500,
            batch_frames=2048,
            learning_rate=4e-3,
            warmup_steps=100,
            cooldown_steps=1200,
            adam_b2=0.95,
            adam_epsilon=1e-9,
            log_every=25,
            eval_every=500,
            eval_sentences=200,
            save_every=500,
        ),
        decoding=DecodingConfig(batch_frames=8192, max_source_length=64, blank_penalty=1.0),
    )
