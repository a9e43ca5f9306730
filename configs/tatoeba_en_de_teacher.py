"""Tatoeba English to German: the autoregressive teacher, for a GPU.

export NATJAX_DATA=<folder that holds tatoeba_deen/>
natjax train tatoeba_en_de_teacher --workdir runs/tatoeba_en_de/teacher
natjax evaluate --model runs/tatoeba_en_de/teacher \
        --source $NATJAX_DATA/tatoeba_deen/test2000.en --reference $NATJAX_DATA/tatoeba_deen/test2000.de

What to expect: not measured yet.
"""

from dataclasses import replace

from natjax.config import Config, load_config


def get_config() -> Config:
    """As tatoeba_de_en_teacher, on the text of tatoeba_en_de."""
    teacher = load_config("tatoeba_de_en_teacher")
    return replace(teacher, name="tatoeba_en_de_teacher", data=load_config("tatoeba_en_de").data)
