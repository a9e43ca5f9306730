"""WMT16 Romanian to English: as wmt16_en_ro, the other way round.

export NATJAX_DATA=<folder that holds wmt16_enro/, see wmt16_en_ro> NATJAX_DISTILLED=$PWD/runs/wmt16_ro_en/distilled
natjax train wmt16_ro_en_teacher --workdir runs/wmt16_ro_en/teacher
natjax distill --teacher runs/wmt16_ro_en/teacher --source $NATJAX_DATA/wmt16_enro/train.ron \
        --target $NATJAX_DATA/wmt16_enro/train.eng --output $NATJAX_DISTILLED/train.target
natjax train wmt16_ro_en --workdir runs/wmt16_ro_en/kd --data.train-target $NATJAX_DISTILLED/train.target
natjax evaluate --model runs/wmt16_ro_en/kd --tokenize moses \
        --source $NATJAX_DATA/wmt16_enro/test.ron --reference $NATJAX_DATA/wmt16_enro/test.eng

What to expect: the paper's tokenized BLEU on newstest2016, greedy (table 2). natjax has not been trained on WMT16 yet.

| options of `natjax train wmt16_ro_en`                  | raw   | KD    |
|---|---|---|
| `--objective.loss ce --training.batch-frames 131072`   | 24.79 | 30.25 |
|                                                        |       | 34.07 |
| `--objective.glancing glat`                            |       | 34.16 |
| `--model.latents vae`                                  |       | 33.87 |
"""

from dataclasses import replace

from natjax.config import Config, load_config


def get_config() -> Config:
    """The two sides of wmt16_en_ro exchanged."""
    forth = load_config("wmt16_en_ro")
    return replace(forth, name="wmt16_ro_en", data=forth.data.exchanged())
