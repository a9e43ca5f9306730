"""Connectionist temporal classification: loss, feasibility, collapse. Usable on its own, in any JAX program."""

from natjax.ctc._check import check
from natjax.ctc._collapse import collapse, is_feasible
from natjax.ctc._enum import AUTO, Implementation
from natjax.ctc._loss import ctc_loss, from_optax

__all__ = ["AUTO", "Implementation", "check", "collapse", "ctc_loss", "from_optax", "is_feasible"]
