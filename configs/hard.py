"""The embedded corpus, difficulty `hard`: free word order and agreeing choices, raw targets, CTC.

    natjax train hard --workdir runs/hard
    python benchmarks/system.py hard --name embedded_hard/nat_ctc_raw --workdir runs/hard --target-bleu 50

Frames are independent of each other given the source, so orders and agreement get mixed up: there is room for
latents, glancing and distillation.
"""

from dataclasses import replace

from natjax.config import Config, ModelConfig, TrainingConfig, VocabConfig, load_config


def get_config() -> Config:
    """As `demo`, with more words and more updates."""
    demo = load_config("demo")
    training: TrainingConfig = replace(demo.training, steps=2000, cooldown_steps=1500)
    model: ModelConfig = replace(demo.model, ratio=2.5)
    return replace(
        demo,
        name="hard",
        data=replace(demo.data, embedded="hard"),
        vocab=VocabConfig(size=1500),
        model=model,
        training=training,
        # Plain argmax, as its result was measured.
        decoding=replace(demo.decoding, blank_penalty=0.0),
    )
