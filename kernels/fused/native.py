"""The operations of `FusedKernels` by machine code on a CPU. Importing this loads Numba."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from aril.kernels.attention.native import attend_native as attend
from aril.kernels.attention.native import make_native_plan as make_plan
from aril.kernels.native import (
    NativeProgram,
    add_norm,
    gate,
    gate_halves,
    place_heads_of,
    rms_norm,
    rotate,
)

if TYPE_CHECKING:
    from torch import Tensor

    from aril.kernels.program import Program

__all__ = [
    "add_norm",
    "attend",
    "gate",
    "gate_halves",
    "highest_place",
    "make_plan",
    "place_heads_of",
    "program",
    "rms_norm",
    "rotate",
]


class _Here(threading.local):
    program: NativeProgram | None = None


_HERE = _Here()


def program() -> Program:
    """Return this thread's program, empty; see `FusedKernels.program`."""
    if _HERE.program is None:
        _HERE.program = NativeProgram()
    _HERE.program.forget()
    return _HERE.program


def highest_place(places: Tensor) -> int:
    """See `FusedKernels.highest_place`."""
    return int(places.max()) if len(places) else -1
