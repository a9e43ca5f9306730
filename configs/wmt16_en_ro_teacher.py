"""WMT16 English to Romanian: the autoregressive teacher, Transformer base.

natjax train wmt16_en_ro_teacher --workdir runs/wmt16_en_ro/teacher        # data: see wmt16_en_ro
natjax evaluate --model runs/wmt16_en_ro/teacher --tokenize moses \
        --source $NATJAX_DATA/wmt16_enro/test.eng --reference $NATJAX_DATA/wmt16_enro/test.ron

What to expect: the paper's tokenized BLEU on newstest2016, beam 5 (table 2): 33.70; with 12+1 layers, on the teacher's
targets, 33.52. natjax has not been trained on WMT16 yet.
"""

from dataclasses import replace

from natjax.config import Config, load_config


def get_config() -> Config:
    """As wmt14_en_de_teacher, on the text of wmt16_en_ro."""
    data = load_config("wmt16_en_ro").data
    return replace(load_config("wmt14_en_de_teacher"), name="wmt16_en_ro_teacher", data=data)
