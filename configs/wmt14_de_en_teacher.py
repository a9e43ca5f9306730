"""WMT14 German to English: the autoregressive teacher, Transformer base.

natjax train wmt14_de_en_teacher --workdir runs/wmt14_de_en/teacher        # data: see wmt14_en_de
natjax evaluate --model runs/wmt14_de_en/teacher --tokenize moses \
        --source $NATJAX_DATA/wmt14_ende/test.deu --reference $NATJAX_DATA/wmt14_ende/test.eng

What to expect: the paper's tokenized BLEU on newstest2014, beam 5 (table 2): 31.39; with 12+1 layers, on the teacher's
targets, 30.95. natjax has not been trained on WMT14 yet.
"""

from dataclasses import replace

from natjax.config import Config, load_config


def get_config() -> Config:
    """As wmt14_en_de_teacher, on the text of wmt14_de_en."""
    data = load_config("wmt14_de_en").data
    return replace(load_config("wmt14_en_de_teacher"), name="wmt14_de_en_teacher", data=data)
