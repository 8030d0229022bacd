"""SGMV: the LoRA products of a batch whose rows belong to different adapters. See README.md."""

from kernels.sgmv.biases import SlotBiases
from kernels.sgmv.experts import PackedExperts
from kernels.sgmv.gains import Gains
from kernels.sgmv.group import GroupShape, LoraPair
from kernels.sgmv.ops import sgmv_
from kernels.sgmv.packed import PackedAdapter, PackedWeights, slot_type
from kernels.sgmv.plan import SgmvMode, SgmvPlan, make_plan, plan_on
from kernels.sgmv.plan_layout import PlanLayout
from kernels.sgmv.segments import NO_ADAPTER, Segment
from kernels.sgmv.slot_copies import SlotCopies
from kernels.sgmv.slot_weights import SlotWeights, make_slot_weights
from kernels.sgmv.stacked import StackedWeights
from kernels.sgmv.tiles import block_height

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
