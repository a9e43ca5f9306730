"""Multi30k English to German, cased and raw: the autoregressive teacher, for two CPU cores.

export NATJAX_DATA=<folder that holds multi30k/>
natjax train configs/multi30k_en_de_teacher_cpu.py --workdir runs/multi30k_en_de_teacher
natjax evaluate --model runs/multi30k_en_de_teacher \
        --source $NATJAX_DATA/multi30k/test_2016_flickr.en --reference $NATJAX_DATA/multi30k/test_2016_flickr.de

What to expect on test_2016_flickr (files of benchmarks/results):

| | BLEU | chrF2++ | result |
|---|---|---|---|
| beam 5 | 39.1 | 61.3 | multi30k_en_de/at_tiny_raw_beam5.json |
| greedy | 37.9 | 60.5 | multi30k_en_de/at_tiny_raw_greedy.json |

It was trained in 5,613 s on two cores that had other work, too, and before commit 4ec232b, since which the batches of
decoders whose positions follow the target hold fewer padded ones: an epoch then had 133 updates and has 94 now. So the
4,000 updates were 30 epochs, and are 42 now. This has not been run yet.
"""

from dataclasses import replace

from natjax.config import Config, ModelConfig, ObjectiveConfig, load_config


def get_config() -> Config:
    """3+3 layers of width 192, on the text of multi30k_en_de."""
    student = load_config("multi30k_en_de")
    training = replace(
        student.training,
        steps=4000,
        batch_frames=6144,
        learning_rate=3e-3,
        warmup_steps=500,
        cooldown_steps=2500,
        weight_decay=0.0,
    )
    return replace(
        student,
        name="multi30k_en_de_teacher_cpu",
        data=replace(student.data, buckets=6),
        model=ModelConfig.tiny(kind="autoregressive", dropout=0.25),
        objective=ObjectiveConfig(loss="ce", label_smoothing=0.1, target_eos=True),
        training=training,
    )
