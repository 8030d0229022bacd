"""Kernels for CPUs, compiled on the machine that runs them: what is no matrix product in a step.

Elements are float32 or bfloat16 on the CPU; a caller asks `kernels.backend.uses_native` first.
Importing this loads Numba.
"""

from kernels.native.attend import Queries, attend_queries
from kernels.native.lora import ROWS, NativeBlocks, NativeLinear, NativeSlots, add_lora_
from kernels.native.rows import add_rms_norm, gate, rms_norm, rotate, store_rows

__all__ = [
    "ROWS",
    "NativeBlocks",
    "NativeLinear",
    "NativeSlots",
    "Queries",
    "add_lora_",
    "add_rms_norm",
    "attend_queries",
    "gate",
    "rms_norm",
    "rotate",
    "store_rows",
]
