"""WMT14 English to German: the paper's system, base, CTC. Raw targets; each technique is one option.

export NATJAX_DATA=<folder> NATJAX_DISTILLED=$PWD/runs/wmt14_en_de/distilled
mtdata get -l eng-deu --merge -o $NATJAX_DATA/wmt14_ende -tr Statmt-europarl_wmt13-7-deu-eng \
        Statmt-commoncrawl_wmt13-1-deu-eng Statmt-news_commentary_wmt18-13-deu-eng
sacrebleu -t wmt13 -l en-de --echo src > $NATJAX_DATA/wmt14_ende/valid.eng
sacrebleu -t wmt13 -l en-de --echo ref > $NATJAX_DATA/wmt14_ende/valid.deu
sacrebleu -t wmt14/full -l en-de --echo src > $NATJAX_DATA/wmt14_ende/test.eng
sacrebleu -t wmt14/full -l en-de --echo ref > $NATJAX_DATA/wmt14_ende/test.deu

natjax train wmt14_en_de_teacher --workdir runs/wmt14_en_de/teacher
natjax distill --teacher runs/wmt14_en_de/teacher --source $NATJAX_DATA/wmt14_ende/train.eng \
        --target $NATJAX_DATA/wmt14_ende/train.deu --output $NATJAX_DISTILLED/train.target
natjax train wmt14_en_de --workdir runs/wmt14_en_de/kd --data.train-target $NATJAX_DISTILLED/train.target
natjax evaluate --model runs/wmt14_en_de/kd --tokenize moses \
        --source $NATJAX_DATA/wmt14_ende/test.eng --reference $NATJAX_DATA/wmt14_ende/test.deu

What to expect: the paper's tokenized BLEU on newstest2014, greedy (tables 2, 4 and 5; * its row is inferred, since the
table's columns are lost in the text at hand). natjax has not been trained on WMT14 yet.

| options of `natjax train wmt14_en_de`                                             | raw    | KD     |
|---|---|---|
| `--objective.loss ce --training.batch-frames 131072`                              | 11.40  | 19.50  |
| `--objective.loss axe --training.batch-frames 131072`                             | 16.59  | 21.66  |
| `--objective.loss axe --training.batch-frames 131072 --model.latents vae`         |        | 22.19  |
| `--objective.loss axe --training.batch-frames 131072 --objective.glancing rnd`    |        | 22.74* |
| `--objective.loss axe --training.batch-frames 131072 --objective.glancing glat`   |        | 24.67* |
|                                                                                   | 18.18  | 26.51  |
| `--objective.glancing rnd`                                                        |        | 26.16* |
| `--objective.glancing glat`                                                       | 21.81  | 27.20  |
| `--model.latents vae`                                                             | 23.58  | 27.49  |
| `--model.latents vae --objective.glancing glat`                                   |        | 27.21  |

Frames a source piece, with KD and CTC (table 6): `--model.ratio` 1.5 26.16, 2.0 26.39, 2.5 26.54, 3.0 26.51.

The official release's settings (docs/recipes.md) in place of the paper's:

natjax train wmt14_en_de --workdir runs/wmt14_en_de/release --data.train-target $NATJAX_DISTILLED/train.target \
        --objective.label-smoothing 0.1 --objective.normalizer sentence_mean --objective.target-eos \
        --objective.glancing-distance hamming --objective.glancing-random scaled --training.eval-every 5000 \
        --training.save-every 5000 --training.keep-last 10
"""

from natjax.config import Config, DataConfig, ModelConfig, ObjectiveConfig, TrainingConfig, VocabConfig


def get_config() -> Config:
    """The paper's hyperparameters; lengths and vocabulary are those of the preprocessing that it follows."""
    return Config(
        name="wmt14_en_de",
        data=DataConfig(
            root="$NATJAX_DATA/wmt14_ende",
            train_source="train.eng",
            train_target="train.deu",
            valid_source="valid.eng",
            valid_target="valid.deu",
            # Zhou et al. (2020) use fairseq's prepare-wmt14en2de.sh: 1 to 250 pieces, ratio 1.5, 40,000 merges.
            max_length=256,
            max_ratio=1.5,
            buckets=8,
            obtain="`natjax configs copy wmt14_en_de` gives the commands",
        ),
        vocab=VocabConfig(size=40_000),
        model=ModelConfig.base(dropout=0.3, ratio=3.0, dtype="bfloat16"),
        objective=ObjectiveConfig.paper(),
        # 128K source tokens, at three frames each.
        training=TrainingConfig.paper(batch_frames=3 * 131_072),
    )
