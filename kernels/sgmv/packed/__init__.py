"""LoRA by torch: each adapter packed at its own rank, segment after segment."""

from aril.kernels.sgmv.packed.adapter import PackedAdapter, PackedLinear, pack, slot_type
from aril.kernels.sgmv.packed.products import add_rounded_once_, add_segments_
from aril.kernels.sgmv.packed.torch_products import TorchProducts
from aril.kernels.sgmv.packed.weights import PackedWeights

__all__ = [
    "PackedAdapter",
    "PackedLinear",
    "PackedWeights",
    "TorchProducts",
    "add_rounded_once_",
    "add_segments_",
    "pack",
    "slot_type",
]
