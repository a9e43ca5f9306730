"""As multi30k_tok_en_de_teacher, for two CPU cores: fewer and smaller updates that teach more.

The published recipe (post-norm, dropout 0.3, rate 5e-3) is made for many epochs and learns far slower in the first
(benchmarks/results/multi30k_tok_en_de/post_norm_stopped.metrics.jsonl, warm-up 1,000).

export NATJAX_DATA=<folder that holds multi30k_tok/>
natjax train configs/multi30k_tok_en_de_teacher_cpu.py --workdir runs/multi30k_tok_en_de_teacher_cpu
natjax evaluate --model runs/multi30k_tok_en_de_teacher_cpu --tokenize none \
        --source $NATJAX_DATA/multi30k_tok/test_2016_flickr.en \
        --reference $NATJAX_DATA/multi30k_tok/test_2016_flickr.de

What to expect on test_2016_flickr (files of benchmarks/results), BLEU by `--tokenize none`:

| | BLEU | chrF2++ | result |
|---|---|---|---|
| beam 5 | 39.6 | 62.5 | multi30k_tok_en_de/at_tiny_raw_beam5.json |
| greedy | 38.4 | 61.7 | multi30k_tok_en_de/at_tiny_raw_greedy.json |

These are of the last checkpoint alone, not of an average: none had a better validation BLEU. It was trained in 5,712 s
on two cores that had other work, too, and before commit 4ec232b, since which an epoch has fewer updates, and 4,000
updates are more epochs.
"""

from dataclasses import replace

from natjax.config import Config, TrainingConfig, VocabConfig, load_config


def get_config() -> Config:
    """4+4 layers of width 128 as published, pre-norm; about 3.5k target tokens an update; a long cool-down."""
    whole = load_config("multi30k_tok_en_de_teacher")
    training: TrainingConfig = replace(
        whole.training,
        steps=4000,
        batch_frames=6144,
        learning_rate=3e-3,
        warmup_steps=500,
        cooldown_steps=2500,
        eval_every=250,
        save_every=250,
        keep_last=5,
    )
    return replace(
        whole,
        name="multi30k_tok_en_de_teacher_cpu",
        data=replace(whole.data, buckets=6),
        model=replace(whole.model, norm="pre", dropout=0.2),
        vocab=VocabConfig(size=6000),
        training=training,
    )
