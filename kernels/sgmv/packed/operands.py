"""y and x of one call, as torch and as numpy see them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from kernels.sgmv.packed.scratch import Array

FLOAT32 = torch.float32


class Operands(NamedTuple):
    """What a call's segments share; `arrays` is the memory of y and x where numpy may have it."""

    y: Tensor
    x: Tensor
    arrays: tuple[Array, Array] | None


def operands_of(y: Tensor, x: Tensor) -> Operands:
    """View y and x once for all segments: by numpy too where they are fp32 on the CPU.

    Not where autograd has to see what is done.
    """
    if x.dtype is not FLOAT32 or y.dtype is not FLOAT32 or not x.is_cpu:
        return Operands(y, x, None)
    if x.requires_grad or y.requires_grad:
        return Operands(y, x, None)
    return Operands(y, x, (y.numpy(), x.numpy()))
