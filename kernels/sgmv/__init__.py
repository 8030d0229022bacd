"""SGMV: the LoRA products of a batch whose rows belong to different adapters. See README.md."""

from aril.kernels.sgmv.biases import SlotBiases
from aril.kernels.sgmv.experts import PackedExperts
from aril.kernels.sgmv.gains import Gains
from aril.kernels.sgmv.group import GroupShape, LoraPair
from aril.kernels.sgmv.ops import sgmv_
from aril.kernels.sgmv.packed import PackedAdapter, PackedWeights, slot_type
from aril.kernels.sgmv.plan import SgmvMode, SgmvPlan, make_plan, plan_on
from aril.kernels.sgmv.plan_layout import PlanLayout
from aril.kernels.sgmv.segments import NO_ADAPTER, Segment
from aril.kernels.sgmv.slot_copies import SlotCopies
from aril.kernels.sgmv.slot_weights import SlotWeights, make_slot_weights
from aril.kernels.sgmv.stacked import StackedWeights
from aril.kernels.sgmv.tiles import block_height

__all__ = [
    "NO_ADAPTER",
    "Gains",
    "GroupShape",
    "LoraPair",
    "PackedAdapter",
    "PackedExperts",
    "PackedWeights",
    "PlanLayout",
    "Segment",
    "SgmvMode",
    "SgmvPlan",
    "SlotBiases",
    "SlotCopies",
    "SlotWeights",
    "StackedWeights",
    "block_height",
    "make_plan",
    "make_slot_weights",
    "plan_on",
    "sgmv_",
    "slot_type",
]
