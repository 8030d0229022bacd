"""y and x of one call, as torch and as numpy see them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from kernels.sgmv.packed.scratch import Array

    # y, x, and the memory of both where numpy may have it. A plain tuple: every call makes one.
    Operands = tuple[Tensor, Tensor, tuple[Array, Array] | None]

FLOAT32 = torch.float32


def operands_of(y: Tensor, x: Tensor) -> Operands:
    """View y and x once for all segments: by numpy too where they are fp32 on the CPU.

    Not where autograd has to see what is done.
    """
    if x.dtype is not FLOAT32 or y.dtype is not FLOAT32 or not x.is_cpu:
        return y, x, None
    if x.requires_grad or y.requires_grad:
        return y, x, None
    return y, x, (y.numpy(), x.numpy())
