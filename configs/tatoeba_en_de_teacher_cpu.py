"""Tatoeba English to German: the autoregressive teacher, for two CPU cores.

export NATJAX_DATA=<folder that holds tatoeba_deen/>
natjax train tatoeba_en_de_teacher_cpu --workdir runs/tatoeba_en_de_cpu/teacher
natjax evaluate --model runs/tatoeba_en_de_cpu/teacher \
        --source $NATJAX_DATA/tatoeba_deen/test2000.en --reference $NATJAX_DATA/tatoeba_deen/test2000.de

What to expect: not measured yet.
"""

from dataclasses import replace

from natjax.config import Config, load_config


def get_config() -> Config:
    """As tatoeba_de_en_teacher_cpu, on the text of tatoeba_en_de_cpu."""
    teacher = load_config("tatoeba_de_en_teacher_cpu")
    return replace(teacher, name="tatoeba_en_de_teacher_cpu", data=load_config("tatoeba_en_de_cpu").data)
