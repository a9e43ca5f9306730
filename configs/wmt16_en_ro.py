"""WMT16 English to Romanian: the paper's system, base, CTC. Raw targets; each technique is one option.

export NATJAX_DATA=<folder> NATJAX_DISTILLED=$PWD/runs/wmt16_en_ro/distilled
mtdata get -l eng-ron --merge -o $NATJAX_DATA/wmt16_enro -tr OPUS-europarl-v8-eng-ron OPUS-setimes-v2-eng-ron
sacrebleu -t wmt16/dev -l en-ro --echo src > $NATJAX_DATA/wmt16_enro/valid.eng
sacrebleu -t wmt16/dev -l en-ro --echo ref > $NATJAX_DATA/wmt16_enro/valid.ron
sacrebleu -t wmt16 -l en-ro --echo src > $NATJAX_DATA/wmt16_enro/test.eng
sacrebleu -t wmt16 -l en-ro --echo ref > $NATJAX_DATA/wmt16_enro/test.ron

natjax train wmt16_en_ro_teacher --workdir runs/wmt16_en_ro/teacher
natjax distill --teacher runs/wmt16_en_ro/teacher --source $NATJAX_DATA/wmt16_enro/train.eng \
        --target $NATJAX_DATA/wmt16_enro/train.ron --output $NATJAX_DISTILLED/train.target
natjax train wmt16_en_ro --workdir runs/wmt16_en_ro/kd --data.train-target $NATJAX_DISTILLED/train.target
natjax evaluate --model runs/wmt16_en_ro/kd --tokenize moses \
        --source $NATJAX_DATA/wmt16_enro/test.eng --reference $NATJAX_DATA/wmt16_enro/test.ron

What to expect: the paper's tokenized BLEU on newstest2016, greedy (table 2). natjax has not been trained on WMT16 yet.

| options of `natjax train wmt16_en_ro`                  | raw   | KD    |
|---|---|---|
| `--objective.loss ce --training.batch-frames 131072`   | 24.52 | 29.91 |
|                                                        |       | 33.41 |
| `--objective.glancing glat`                            |       | 33.71 |
| `--model.latents vae`                                  |       | 33.79 |
"""

from dataclasses import replace

from natjax.config import Config, load_config


def get_config() -> Config:
    """As wmt14_en_de, on other text; Lee et al. (2018), whom the paper follows here, have 40,000 pieces too."""
    german = load_config("wmt14_en_de")
    data = replace(
        german.data,
        root="$NATJAX_DATA/wmt16_enro",
        train_target="train.ron",
        valid_target="valid.ron",
        target_language="ro",
        max_ratio=4.0,
        obtain="`natjax configs copy wmt16_en_ro` gives the commands",
    )
    return replace(german, name="wmt16_en_ro", data=data)
