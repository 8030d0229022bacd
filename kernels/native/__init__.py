"""Kernels for CPUs, compiled on the machine that runs them.

Elements are float32 or bfloat16 on the CPU; a caller asks `aril.kernels.backend.uses_native` first.
Importing this loads Numba.
"""

from aril.kernels.native.ahead import compile_kernels
from aril.kernels.native.attend import Queries, attend_queries
from aril.kernels.native.dense import Dense, can_multiply
from aril.kernels.native.fused import add_norm, gate_halves, place_heads_of
from aril.kernels.native.int8_rows import quantize_rows, widen_rows
from aril.kernels.native.lora import (
    NativeBlocks,
    NativeLinear,
    NativeSlots,
    add_lora_,
)
from aril.kernels.native.program import NativeProgram
from aril.kernels.native.prompts import Prompt, attend_prompt
from aril.kernels.native.rows import gate, rms_norm, rotate, store_rows
from aril.kernels.norm import Norm

__all__ = [
    "Dense",
    "NativeBlocks",
    "NativeLinear",
    "NativeProgram",
    "NativeSlots",
    "Norm",
    "Prompt",
    "Queries",
    "add_lora_",
    "add_norm",
    "attend_prompt",
    "attend_queries",
    "can_multiply",
    "compile_kernels",
    "gate",
    "gate_halves",
    "place_heads_of",
    "quantize_rows",
    "rms_norm",
    "rotate",
    "store_rows",
    "widen_rows",
]
