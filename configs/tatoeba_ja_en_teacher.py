"""Tatoeba Japanese to English: the autoregressive teacher, for a GPU.

export NATJAX_DATA=<folder that holds tatoeba_jaen/>
natjax train tatoeba_ja_en_teacher --workdir runs/tatoeba_ja_en/teacher
natjax evaluate --model runs/tatoeba_ja_en/teacher \
        --source $NATJAX_DATA/tatoeba_jaen/test2000.ja --reference $NATJAX_DATA/tatoeba_jaen/test2000.en

What to expect: not measured yet.
"""

from dataclasses import replace

from natjax.config import Config, load_config


def get_config() -> Config:
    """As tatoeba_de_en_teacher, on the text of tatoeba_ja_en; fewer updates, a table of embeddings a side."""
    teacher, student = load_config("tatoeba_de_en_teacher"), load_config("tatoeba_ja_en")
    model = replace(teacher.model, share_embeddings=False)
    training = replace(teacher.training, steps=6000, cooldown_steps=3600)
    return replace(
        teacher,
        name="tatoeba_ja_en_teacher",
        data=student.data,
        vocab=student.vocab,
        model=model,
        training=training,
    )
