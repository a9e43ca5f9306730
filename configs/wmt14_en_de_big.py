"""WMT14 English to German: the paper's big student, for targets of a big teacher.

export NATJAX_DATA=<folder that holds wmt14_ende/, see wmt14_en_de> NATJAX_DISTILLED=$PWD/runs/wmt14_en_de/distilled_big
natjax train wmt14_en_de_teacher --workdir runs/wmt14_en_de/teacher_big \
        --model.width 1024 --model.feed-forward 4096 --model.heads 16
natjax distill --teacher runs/wmt14_en_de/teacher_big --source $NATJAX_DATA/wmt14_ende/train.eng \
        --target $NATJAX_DATA/wmt14_ende/train.deu --output $NATJAX_DISTILLED/train.target
natjax train wmt14_en_de_big --workdir runs/wmt14_en_de/big --model.latents vae \
        --data.train-target $NATJAX_DISTILLED/train.target
natjax evaluate --model runs/wmt14_en_de/big --tokenize moses \
        --source $NATJAX_DATA/wmt14_ende/test.eng --reference $NATJAX_DATA/wmt14_ende/test.deu

What to expect: 27.89, the paper's tokenized BLEU on newstest2014 (table 5); its base student has 27.56 on the same
targets. natjax has not been trained on WMT14 yet.
"""

from dataclasses import replace

from natjax.config import Config, ModelConfig, load_config


def get_config() -> Config:
    """One section differs from wmt14_en_de: 1024/4096, 8 heads (appendix A)."""
    base = load_config("wmt14_en_de")
    model = ModelConfig.big(heads=8, dropout=base.model.dropout, ratio=base.model.ratio, dtype=base.model.dtype)
    return replace(base, name="wmt14_en_de_big", model=model)
