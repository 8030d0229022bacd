"""All kernels compiled before they are needed: else the first jobs would wait for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aril.kernels.native import attend, dense, fused, key_blocks, lora, program, prompts, rows
from aril.kernels.native.kernel import Kernel

if TYPE_CHECKING:
    import torch


def compile_kernels(dtype: torch.dtype) -> None:
    """Compile what a model of this type may call: seconds, unless an earlier start has kept it.

    Not what weights in eight bits need: where there are any, the start's own proof has called it.
    """
    for module in (attend, dense, fused, key_blocks, lora, program, prompts, rows):
        for each in vars(module).values():
            if isinstance(each, Kernel):
                each.prepare(dtype)
