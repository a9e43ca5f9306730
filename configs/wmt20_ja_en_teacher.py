"""WMT20 Japanese to English: the autoregressive teacher, Transformer big.

natjax train wmt20_ja_en_teacher --workdir runs/wmt20_ja_en/teacher        # data: see wmt20_ja_en
natjax evaluate --model runs/wmt20_ja_en/teacher \
        --source $NATJAX_DATA/wmt20_jaen/test.jpn --reference $NATJAX_DATA/wmt20_jaen/test.eng

What to expect: the paper's sacreBLEU and brevity penalty on newstest2020, beam 5 (table 3). natjax has not been trained
on WMT20 yet.

| options of `natjax train wmt20_ja_en_teacher`                                                 | BLEU  | BP    |
|---|---|---|
|                                                                                               | 21.07 | 0.920 |
| `--model.width 512 --model.feed-forward 2048 --model.heads 8`                                 | 18.91 | 0.908 |
| the same, `--model.encoder-layers 12 --model.decoder-layers 1`                                | 15.47 | 0.806 |
| the same, on the big teacher's targets                                                        | 18.76 | 0.887 |
"""

from dataclasses import replace

from natjax.config import Config, load_config


def get_config() -> Config:
    """As wmt14_en_de_teacher, on the text of wmt20_ja_en; 1024/4096, 16 heads."""
    student, german = load_config("wmt20_ja_en"), load_config("wmt14_en_de_teacher")
    return replace(
        german,
        name="wmt20_ja_en_teacher",
        data=student.data,
        vocab=student.vocab,
        model=replace(german.model, width=1024, feed_forward=4096, heads=16, dropout=student.model.dropout),
    )
