"""A linear's weight as machine code of ours multiplies it: the same bits for any number of rows.

Such products are written into the program of a step's layers (kernels/program.py), which a
library's are not: decision 077.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aril.kernels.backend import uses_native
from aril.kernels.program import settle

if TYPE_CHECKING:
    from torch import Tensor


class TiledWeight:
    """Weight [out, in] and bias of a linear, laid out for `__call__`."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """Copy a weight that `can_tile` takes."""
        from aril.kernels.native import Dense  # noqa: PLC0415 - loads Numba

        self._dense = Dense(weight, bias)
        self.addresses = self._dense.addresses  # of what its calls read

    def __call__(self, x: Tensor) -> Tensor:
        """Return x [..., in] times the weight, plus the bias: [..., out]."""
        out = x.new_empty((*x.shape[:-1], self._dense.columns))
        if out.numel():
            rows = x.reshape(-1, x.shape[-1])
            self.into(out.view(-1, out.shape[-1]), rows)
        return out

    def into(self, out: Tensor, x: Tensor) -> None:
        """Write the product of x [T, in] to out [T, out]; at least one row.

        Raises ValueError for rows of another width or type, and for x that wants a gradient.
        """
        dense = self._dense
        if not x.dtype is out.dtype is dense.dtype or x.shape[1] != dense.depth:
            raise ValueError(
                f"rows {list(x.shape)} of {x.dtype} for {out.dtype}, by a weight of "
                f"{dense.depth} columns and {dense.dtype}"
            )
        if x.requires_grad:
            raise ValueError("machine code has no gradients: backend 'torch' has")
        if x.stride(1) == 1:
            dense.multiply(out, x)
            return
        settle()  # what makes x
        copy = x.contiguous()
        dense.multiply(out, copy)
        settle()  # while the copy lives

    def dense(self) -> Tensor:
        """Return a plain copy of the weight [out, in], bit for bit what was laid out."""
        return self._dense.dense()


def can_tile(weight: Tensor, backend: str) -> bool:
    """Whether a backend multiplies by such a weight, on this processor."""
    if not uses_native(backend, weight.device, weight.dtype):
        return False
    from aril.kernels.native import can_multiply  # noqa: PLC0415 - loads Numba

    return can_multiply(weight)
