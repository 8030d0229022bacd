"""Paged attention over a block table, prefill and decode rows in one call."""

from kernels.attention.gather import AttentionPlan, make_attention_plan
from kernels.attention.invariant import InvariantPlan, make_invariant_plan
from kernels.attention.ops import paged_attention, store_kv
from kernels.attention.scores import Extras, attend_by_scores
from kernels.attention.sight import Sight

__all__ = [
    "AttentionPlan",
    "Extras",
    "InvariantPlan",
    "Sight",
    "attend_by_scores",
    "make_attention_plan",
    "make_invariant_plan",
    "paged_attention",
    "store_kv",
]
