"""Tatoeba Japanese to English, raw targets, CTC: the distant pair, for a GPU.

export NATJAX_DATA=<folder that holds tatoeba_jaen/>
natjax train tatoeba_ja_en --workdir runs/tatoeba_ja_en/raw
natjax evaluate --model runs/tatoeba_ja_en/raw \
        --source $NATJAX_DATA/tatoeba_jaen/test2000.ja --reference $NATJAX_DATA/tatoeba_jaen/test2000.en

What to expect: not measured yet.
"""

from dataclasses import replace

from natjax.config import Config, TrainingConfig, VocabConfig, load_config


def get_config() -> Config:
    """55k short pairs, so fewer updates than tatoeba_de_en; 2.5 frames a piece; a vocabulary a side.

    The languages share no characters. Japanese is not segmented: SentencePiece does that.
    """
    german = load_config("tatoeba_de_en")
    data = replace(
        german.data,
        root="$NATJAX_DATA/tatoeba_jaen",
        train_source="train.ja",
        valid_source="valid.ja",
        source_language="ja",
    )
    training: TrainingConfig = replace(german.training, steps=8000, cooldown_steps=4800)
    return replace(
        german,
        name="tatoeba_ja_en",
        data=data,
        training=training,
        vocab=VocabConfig(size=6000, joint=False, character_coverage=0.9995),
        model=replace(german.model, ratio=2.5, share_embeddings=False),
    )
