"""Connectionist temporal classification: losses, alignment, occupancy, search, collapse; usable in any JAX program."""

from natjax.ctc._alignment import Alignment, occupancy, viterbi_alignment
from natjax.ctc._beam import BeamResult, beam_search
from natjax.ctc._check import check
from natjax.ctc._collapse import collapse, is_feasible
from natjax.ctc._enum import AUTO, Implementation
from natjax.ctc._head import operand_dtype
from natjax.ctc._label_logits import linear_label_logits
from natjax.ctc._linear import linear_ctc_loss, linear_ctc_objective
from natjax.ctc._linear_alignment import LinearAlignment, linear_viterbi_alignment
from natjax.ctc._loss import ctc_loss, from_optax
from natjax.ctc._pruned import Pruned, linear_prune, prune
from natjax.ctc._top_k import TopK, linear_top_k

__all__ = [
    "AUTO",
    "Alignment",
    "BeamResult",
    "Implementation",
    "LinearAlignment",
    "Pruned",
    "TopK",
    "beam_search",
    "check",
    "collapse",
    "ctc_loss",
    "from_optax",
    "is_feasible",
    "linear_ctc_loss",
    "linear_ctc_objective",
    "linear_label_logits",
    "linear_prune",
    "linear_top_k",
    "linear_viterbi_alignment",
    "occupancy",
    "operand_dtype",
    "prune",
    "viterbi_alignment",
]
