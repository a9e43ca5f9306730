"""WMT14 German to English: as wmt14_en_de, the other way round.

export NATJAX_DATA=<folder that holds wmt14_ende/, see wmt14_en_de> NATJAX_DISTILLED=$PWD/runs/wmt14_de_en/distilled
natjax train wmt14_de_en_teacher --workdir runs/wmt14_de_en/teacher
natjax distill --teacher runs/wmt14_de_en/teacher --source $NATJAX_DATA/wmt14_ende/train.deu \
        --target $NATJAX_DATA/wmt14_ende/train.eng --output $NATJAX_DISTILLED/train.target
natjax train wmt14_de_en --workdir runs/wmt14_de_en/kd --data.train-target $NATJAX_DISTILLED/train.target
natjax evaluate --model runs/wmt14_de_en/kd --tokenize moses \
        --source $NATJAX_DATA/wmt14_ende/test.deu --reference $NATJAX_DATA/wmt14_ende/test.eng

What to expect: the paper's tokenized BLEU on newstest2014, greedy (table 2). natjax has not been trained on WMT14 yet.

| options of `natjax train wmt14_de_en`                  | raw   | KD    |
|---|---|---|
| `--objective.loss ce --training.batch-frames 131072`   | 16.47 | 24.95 |
|                                                        |       | 30.46 |
| `--objective.glancing glat`                            |       | 31.39 |
| `--model.latents vae`                                  |       | 31.10 |
"""

from dataclasses import replace

from natjax.config import Config, load_config


def get_config() -> Config:
    """The two sides of wmt14_en_de exchanged."""
    forth = load_config("wmt14_en_de")
    return replace(forth, name="wmt14_de_en", data=forth.data.exchanged())
