"""SGMV: the LoRA products of a batch whose rows belong to different adapters. See README.md."""

from kernels.sgmv.gains import Gains
from kernels.sgmv.ops import sgmv_
from kernels.sgmv.plan import NO_ADAPTER, Segment, SgmvMode, SgmvPlan, make_plan
from kernels.sgmv.weights import (
    GroupShape,
    LoraPair,
    PackedWeights,
    SlotWeights,
    StackedWeights,
    make_slot_weights,
)

__all__ = [
    "NO_ADAPTER",
    "Gains",
    "GroupShape",
    "LoraPair",
    "PackedWeights",
    "Segment",
    "SgmvMode",
    "SgmvPlan",
    "SlotWeights",
    "StackedWeights",
    "make_plan",
    "make_slot_weights",
    "sgmv_",
]
