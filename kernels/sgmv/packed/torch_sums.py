"""How torch adds a linear's product to y: one way for each kind of weights.

Each takes the linear, its columns of y [T, width], its shrunk rows [n, r] and which rows of y
those are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from aril.kernels.sgmv.packed.adapter import SCALED_TYPES

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from aril.kernels.sgmv.packed.adapter import PackedLinear
    from aril.kernels.sgmv.segments import Rows

    TorchSum = Callable[[PackedLinear, Tensor, Tensor, Rows], None]


def choose_sum(linear: PackedLinear, y_dtype: torch.dtype) -> TorchSum:
    """Choose by the gain, the type of the weights and that of y."""
    if linear.gain is not None:
        return apply_gain_
    if y_dtype is not linear.b.dtype:
        return gather_and_add_
    return add_in_place_ if y_dtype in SCALED_TYPES else add_half_


def add_in_place_(linear: PackedLinear, y: Tensor, shrunk: Tensor, rows: Rows) -> None:
    """Add where y stands: B carries the scale, so nothing is rounded on the way."""
    if isinstance(rows, slice):
        y[rows].addmm_(shrunk, linear.b)
    else:
        y.index_add_(0, rows, torch.mm(shrunk, linear.b))


def add_half_(linear: PackedLinear, y: Tensor, shrunk: Tensor, rows: Rows) -> None:
    """Add adjacent rows where y stands, rounded once; those that lie apart are rounded twice."""
    if isinstance(rows, slice):
        y[rows].addmm_(shrunk, linear.b, alpha=linear.scale)
    else:
        gather_and_add_(linear, y, shrunk, rows)


def gather_and_add_(linear: PackedLinear, y: Tensor, shrunk: Tensor, rows: Rows) -> None:
    """Bring the product to y's type and add it to a copy of the rows, which then goes back."""
    delta = torch.mm(shrunk, linear.b).to(y.dtype)
    y[rows] = y[rows].add_(delta, alpha=linear.scale)


def apply_gain_(linear: PackedLinear, y: Tensor, shrunk: Tensor, rows: Rows) -> None:
    """Add and multiply by DoRA's gain, in fp32 at least."""
    working = torch.promote_types(y.dtype, torch.float32)
    delta = torch.mm(shrunk, linear.b).to(working)
    y[rows] = linear.combine(y[rows].to(working), delta).to(y.dtype)
