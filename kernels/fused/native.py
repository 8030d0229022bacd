"""The operations of `FusedKernels` by machine code on a CPU. Importing this loads Numba."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kernels.attention.native import attend_native as attend
from kernels.attention.native import make_native_plan as make_plan
from kernels.native import add_norm, gate, gate_halves, place_heads_of, rms_norm, rotate

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "add_norm",
    "attend",
    "gate",
    "gate_halves",
    "highest_place",
    "make_plan",
    "place_heads_of",
    "rms_norm",
    "rotate",
]


def highest_place(places: Tensor) -> int:
    """See `FusedKernels.highest_place`."""
    return int(places.max()) if len(places) else -1
