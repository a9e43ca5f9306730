"""Tatoeba English to German, raw targets, CTC: for two CPU cores.

export NATJAX_DATA=<folder that holds tatoeba_deen/>
natjax train tatoeba_en_de_cpu --workdir runs/tatoeba_en_de_cpu/raw
natjax evaluate --model runs/tatoeba_en_de_cpu/raw \
        --source $NATJAX_DATA/tatoeba_deen/test2000.en --reference $NATJAX_DATA/tatoeba_deen/test2000.de

What to expect: not measured yet.
"""

from dataclasses import replace

from natjax.config import Config, load_config


def get_config() -> Config:
    """As tatoeba_de_en_cpu, on the text of tatoeba_en_de."""
    whole = load_config("tatoeba_de_en_cpu")
    return replace(whole, name="tatoeba_en_de_cpu", data=load_config("tatoeba_en_de").data)
