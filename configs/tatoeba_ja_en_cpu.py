"""Tatoeba Japanese to English, raw targets, CTC: for two CPU cores.

export NATJAX_DATA=<folder that holds tatoeba_jaen/>
natjax train tatoeba_ja_en_cpu --workdir runs/tatoeba_ja_en_cpu/raw
natjax evaluate --model runs/tatoeba_ja_en_cpu/raw \
        --source $NATJAX_DATA/tatoeba_jaen/test2000.ja --reference $NATJAX_DATA/tatoeba_jaen/test2000.en

What to expect: not measured yet.
"""

from dataclasses import replace

from natjax.config import Config, load_config


def get_config() -> Config:
    """As tatoeba_de_en_cpu, on the text of tatoeba_ja_en and with its ratio; 4,000 pieces a side."""
    small, whole = load_config("tatoeba_de_en_cpu"), load_config("tatoeba_ja_en")
    model = replace(small.model, ratio=whole.model.ratio, share_embeddings=False)
    vocab = replace(whole.vocab, size=4000)
    return replace(small, name="tatoeba_ja_en_cpu", data=whole.data, vocab=vocab, model=model)
