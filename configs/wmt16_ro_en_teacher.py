"""WMT16 Romanian to English: the autoregressive teacher, Transformer base.

natjax train wmt16_ro_en_teacher --workdir runs/wmt16_ro_en/teacher        # data: see wmt16_en_ro
natjax evaluate --model runs/wmt16_ro_en/teacher --tokenize moses \
        --source $NATJAX_DATA/wmt16_enro/test.ron --reference $NATJAX_DATA/wmt16_enro/test.eng

What to expect: the paper's tokenized BLEU on newstest2016, beam 5 (table 2): 34.05; with 12+1 layers, on the teacher's
targets, 34.01. natjax has not been trained on WMT16 yet.
"""

from dataclasses import replace

from natjax.config import Config, load_config


def get_config() -> Config:
    """As wmt14_en_de_teacher, on the text of wmt16_ro_en."""
    data = load_config("wmt16_ro_en").data
    return replace(load_config("wmt14_en_de_teacher"), name="wmt16_ro_en_teacher", data=data)
