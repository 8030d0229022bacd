"""LoRA by torch and numpy: each adapter packed at its own rank, segment after segment."""

from kernels.sgmv.packed.adapter import PackedAdapter, pack, slot_type
from kernels.sgmv.packed.experts import PackedExperts
from kernels.sgmv.packed.products import Products, add_segments_, choose_products
from kernels.sgmv.packed.scratch import Scratch
from kernels.sgmv.packed.weights import PackedWeights

__all__ = [
    "PackedAdapter",
    "PackedExperts",
    "PackedWeights",
    "Products",
    "Scratch",
    "add_segments_",
    "choose_products",
    "pack",
    "slot_type",
]
