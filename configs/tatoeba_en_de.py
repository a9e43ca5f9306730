"""Tatoeba English to German, raw targets, CTC: tatoeba_de_en the other way round, for a GPU.

export NATJAX_DATA=<folder that holds tatoeba_deen/>
natjax train tatoeba_en_de --workdir runs/tatoeba_en_de/raw
natjax evaluate --model runs/tatoeba_en_de/raw \
        --source $NATJAX_DATA/tatoeba_deen/test2000.en --reference $NATJAX_DATA/tatoeba_deen/test2000.de

What to expect: not measured yet.
"""

from dataclasses import replace

from natjax.config import Config, load_config


def get_config() -> Config:
    """The two sides of tatoeba_de_en exchanged."""
    forth = load_config("tatoeba_de_en")
    return replace(forth, name="tatoeba_en_de", data=forth.data.exchanged())
