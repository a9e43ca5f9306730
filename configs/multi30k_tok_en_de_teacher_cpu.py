"""As multi30k_tok_en_de_teacher, for about an hour on two CPU cores: smaller updates, fewer of them, a cool-down.

export NATJAX_DATA=<folder that holds multi30k_tok/>
natjax train configs/multi30k_tok_en_de_teacher_cpu.py --workdir runs/multi30k_tok_en_de_teacher_cpu
natjax evaluate --model runs/multi30k_tok_en_de_teacher_cpu --tokenize none \
        --source $NATJAX_DATA/multi30k_tok/test_2016_flickr.en \
        --reference $NATJAX_DATA/multi30k_tok/test_2016_flickr.de
"""

from dataclasses import replace

from natjax.config import Config, TrainingConfig, VocabConfig, load_config


def get_config() -> Config:
    """About 3.5k target tokens an update; float32, which many CPUs are faster with (results/ctc/products.json)."""
    whole = load_config("multi30k_tok_en_de_teacher")
    training: TrainingConfig = replace(
        whole.training,
        steps=4000,
        batch_frames=6144,
        warmup_steps=1000,
        cooldown_steps=2500,
        eval_every=250,
        save_every=250,
        keep_last=5,
    )
    return replace(
        whole,
        name="multi30k_tok_en_de_teacher_cpu",
        data=replace(whole.data, buckets=6),
        vocab=VocabConfig(size=6000),
        training=training,
    )
