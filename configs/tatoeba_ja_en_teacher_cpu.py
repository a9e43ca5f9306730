"""Tatoeba Japanese to English: the autoregressive teacher, for two CPU cores.

export NATJAX_DATA=<folder that holds tatoeba_jaen/>
natjax train tatoeba_ja_en_teacher_cpu --workdir runs/tatoeba_ja_en_cpu/teacher
natjax evaluate --model runs/tatoeba_ja_en_cpu/teacher \
        --source $NATJAX_DATA/tatoeba_jaen/test2000.ja --reference $NATJAX_DATA/tatoeba_jaen/test2000.en

What to expect: not measured yet.
"""

from dataclasses import replace

from natjax.config import Config, load_config


def get_config() -> Config:
    """As tatoeba_de_en_teacher_cpu, on the text of tatoeba_ja_en_cpu; a table of embeddings a side."""
    teacher, student = load_config("tatoeba_de_en_teacher_cpu"), load_config("tatoeba_ja_en_cpu")
    model = replace(teacher.model, share_embeddings=False)
    return replace(teacher, name="tatoeba_ja_en_teacher_cpu", data=student.data, vocab=student.vocab, model=model)
