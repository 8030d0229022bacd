"""Paged attention over a block table, prefill and decode rows in one call."""

from aril.kernels.attention.ops import make_host_plan, paged_attention, store_kv
from aril.kernels.attention.scores import Extras, attend_by_scores
from aril.kernels.attention.sight import Sight

__all__ = [
    "Extras",
    "Sight",
    "attend_by_scores",
    "make_host_plan",
    "paged_attention",
    "store_kv",
]
