"""WMT20 Japanese to English: the paper's system, base, CTC, on pairs that Bicleaner finds clean. Raw targets.

export NATJAX_DATA=<folder> NATJAX_DISTILLED=$PWD/runs/wmt20_ja_en/distilled
mtdata get -l jpn-eng --merge -o $NATJAX_DATA/wmt20_jaen -tr KECL-paracrawl-2-eng-jpn \
        Statmt-news_commentary-15-eng-jpn Statmt-wiki_titles-2-jpn-eng Facebook-wikimatrix-1-eng-jpn \
        StanfordNLP-jesc_train-1-eng-jpn Phontron-kftt_train-1-eng-jpn Statmt-ted-wmt20-eng-jpn
paste $NATJAX_DATA/wmt20_jaen/train.eng $NATJAX_DATA/wmt20_jaen/train.jpn | bicleaner-ai-classify --score_only \
        --scol 1 --tcol 2 -t ja - $NATJAX_DATA/wmt20_jaen/train.scores bitextor/bicleaner-ai-full-en-xx
sacrebleu -t wmt20/dev -l ja-en --echo src > $NATJAX_DATA/wmt20_jaen/valid.jpn
sacrebleu -t wmt20/dev -l ja-en --echo ref > $NATJAX_DATA/wmt20_jaen/valid.eng
sacrebleu -t wmt20 -l ja-en --echo src > $NATJAX_DATA/wmt20_jaen/test.jpn
sacrebleu -t wmt20 -l ja-en --echo ref > $NATJAX_DATA/wmt20_jaen/test.eng

natjax train wmt20_ja_en_teacher --workdir runs/wmt20_ja_en/teacher
natjax distill --teacher runs/wmt20_ja_en/teacher --source $NATJAX_DATA/wmt20_jaen/train.jpn \
        --target $NATJAX_DATA/wmt20_jaen/train.eng --output $NATJAX_DISTILLED/train.target
natjax train wmt20_ja_en --workdir runs/wmt20_ja_en/kd --data.train-target $NATJAX_DISTILLED/train.target
natjax evaluate --model runs/wmt20_ja_en/kd \
        --source $NATJAX_DATA/wmt20_jaen/test.jpn --reference $NATJAX_DATA/wmt20_jaen/test.eng

Japanese is not segmented: SentencePiece does that. Without Bicleaner, on all pairs:

natjax prepare wmt20_ja_en --data.train-scores "" --data.minimum-score 0

and the same two options for every `natjax train`.

What to expect: the paper's sacreBLEU and brevity penalty on newstest2020, greedy, with KD (table 3). natjax has not
been trained on WMT20 yet.

| options of `natjax train wmt20_ja_en` | BLEU  | BP    |
|---|---|---|
|                                       | 16.93 | 0.828 |
| `--model.latents vae`                 | 18.73 | 0.862 |

The paper's beam of 20 on the second gives 19.80 (0.958), with a 4-gram language model 21.41 (0.954).
"""

from dataclasses import replace

from natjax.config import Config, VocabConfig, load_config


def get_config() -> Config:
    """As wmt14_en_de, with less dropout (appendix A), 32,000 pieces, and scores.

    The paper keeps 13M of 16M pairs and does not say at which score. 0.5 is the usual one; `natjax prepare` tells how
    many pairs it leaves.
    """
    german = load_config("wmt14_en_de")
    data = replace(
        german.data,
        root="$NATJAX_DATA/wmt20_jaen",
        train_source="train.jpn",
        train_target="train.eng",
        train_scores="train.scores",
        minimum_score=0.5,
        valid_source="valid.jpn",
        valid_target="valid.eng",
        source_language="ja",
        target_language="en",
        max_ratio=4.0,
        obtain="`natjax configs copy wmt20_ja_en` gives the commands",
    )
    return replace(
        german,
        name="wmt20_ja_en",
        data=data,
        vocab=VocabConfig(size=32_000, character_coverage=0.9995),
        model=replace(german.model, dropout=0.1),
    )
