"""N-gram language models over a model's own pieces: estimation, ARPA files, and tables that compiled programs query."""

from natjax.lm.arpa import read_arpa, write_arpa
from natjax.lm.counting import stream
from natjax.lm.estimate import Discounts, estimate
from natjax.lm.layout import make_tables
from natjax.lm.model import NgramModel, Perplexity, perplexity
from natjax.lm.sentences import score_sentences
from natjax.lm.storage import fingerprint, load_tables, save_tables
from natjax.lm.tables import NgramTables, TableSizes, sizes

__all__ = [
    "Discounts",
    "NgramModel",
    "NgramTables",
    "Perplexity",
    "TableSizes",
    "estimate",
    "fingerprint",
    "load_tables",
    "make_tables",
    "perplexity",
    "read_arpa",
    "save_tables",
    "score_sentences",
    "sizes",
    "stream",
    "write_arpa",
]
