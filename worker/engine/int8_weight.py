"""A linear's weight in eight bits, multiplied by rows in eight bits (`ARIL_WEIGHTS=int8`).

Each row of the weight has its own scale, and so has each row that is multiplied: it is found from
that row alone, so tenants do not see each other (oneDNN would take one for a whole batch, which is
why it is told a scale of 1). Sums are of integers and exact. Rows are unsigned, around 128: oneDNN
has fast kernels for no others (decision 072).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch

from kernels.native import quantize_rows, widen_rows
from kernels.products import has_onednn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

# Instructions that sum products of bytes in 32 bits; older ones do it in 16 and saturate.
INTEGER_SUMS: Final = ("avx512_vnni", "avx_vnni")

_MIDDLE: Final = 128  # of the rows' numbers
_LARGEST: Final = 127

_DTYPES: Final = frozenset({torch.float32, torch.bfloat16, torch.float16})


class Int8Weight:
    """Weight [out, in] and bias of a linear in eight bits, for `__call__`."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """Round a weight; a row of zeros stays one."""
        largest = weight.float().abs().amax(1)
        self._scales = torch.where(largest > 0, largest / _LARGEST, 1.0)
        steps = (weight / self._scales[:, None]).round_().to(torch.int8)
        self.out_features = len(weight)
        self._dtype = weight.dtype
        self._weight = torch.ops.onednn.qlinear_prepack(steps, None)
        self._zeros = torch.zeros(len(weight), dtype=torch.int32)
        self._bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        """Return x [..., in] times the weight, plus the bias: [..., out]."""
        shape = (*x.shape[:-1], self.out_features)
        if x.numel() == 0:
            return x.new_empty(shape)
        rows, scales = quantize_rows(x.reshape(-1, x.shape[-1]))
        sums = _multiply(rows, self._weight, self._scales, self._zeros)
        return widen_rows(sums, scales, self._bias, x.dtype).view(shape)

    def dense(self) -> Tensor:
        """Return the weight [out, in] that is in force."""
        steps: Tensor = self._weight.to_dense().T.float()
        return (steps * self._scales[:, None]).to(self._dtype)


def can_quantize(dtype: torch.dtype, found: Mapping[str, Any] | None = None) -> bool:
    """Whether this processor and this build of torch sum products of bytes exactly, and fast.

    `found` are the processor's capabilities by name, by default those of the one at hand.
    """
    capabilities = torch.cpu.get_capabilities() if found is None else found
    return (
        dtype in _DTYPES
        and has_onednn()
        and hasattr(torch.ops.onednn, "qlinear_pointwise")
        and any(map(capabilities.get, INTEGER_SUMS))
    )


def _multiply(rows: Tensor, weight: Tensor, scales: Tensor, zeros: Tensor) -> Tensor:
    """Return (rows - 128) times the weight's steps and scales, float32."""
    y: Tensor = torch.ops.onednn.qlinear_pointwise(
        rows, 1.0, _MIDDLE, weight, scales, zeros, None, 1.0, 0, torch.float32, "none", [], ""
    )
    return y
