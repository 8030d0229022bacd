"""A linear's weight in eight bits, multiplied by rows in eight bits (`ARIL_WEIGHTS=int8`).

Each row of the weight has its own scale, and so has each row that is multiplied: it is found from
that row alone, so tenants do not see each other (oneDNN would take one for a whole batch, which is
why it is told a scale of 1). Sums are of integers and exact. Rows are unsigned, around 128: oneDNN
has fast kernels for no others (decision 072).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch

from aril.kernels.native import quantize_rows, widen_rows
from aril.worker.engine.attention import UnsupportedModelError
from aril.worker.engine.processor import has_onednn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from aril.worker.engine.config import EngineConfig

# Instructions that sum products of bytes in 32 bits; older ones do it in 16 and saturate.
INTEGER_SUMS: Final = ("avx512_vnni", "avx_vnni")

_MIDDLE: Final = 128  # of the rows' numbers
_LARGEST: Final = 127
_MOST_COLUMNS: Final = (2**31 - 1) // (255 * _LARGEST)

_NEEDS: Final = "ARIL_WEIGHTS=int8 needs"


_ROWS: Final = 1024  # of a weight, in float32 at a time
_PROVED: Final = 64  # rows of a weight whose products are looked at
_ROUNDING: Final = 1e-6  # of a sum that becomes float32 and is scaled


class Int8Weight:
    """Weight [out, in] and bias of a linear in eight bits, for `__call__`.

    `factors` [in], float32, are what columns of rows are multiplied by before they are rounded, and
    the weight's columns divided by: see smoothing.py.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, factors: Tensor) -> None:
        """Round a weight; a row of zeros stays one.

        Raises UnsupportedModelError for more columns than 32 bits hold sums of, and where the
        processor's sums are not exact after all.
        """
        if weight.shape[1] > _MOST_COLUMNS:
            raise UnsupportedModelError(
                f"{_NEEDS} linears of at most {_MOST_COLUMNS} columns, not {weight.shape[1]}"
            )
        steps = torch.empty(weight.shape, dtype=torch.int8)
        scales = torch.empty(len(weight))
        for first in range(0, len(weight), _ROWS):
            piece = weight[first : first + _ROWS].float() / factors
            largest = piece.abs().amax(1)
            scale = torch.where(largest > 0, largest / _LARGEST, 1.0)
            scales[first : first + _ROWS] = scale
            steps[first : first + _ROWS] = (piece / scale[:, None]).round_()
        self.out_features = len(weight)
        self._dtype = weight.dtype
        self._weight = torch.ops.onednn.qlinear_prepack(steps, None)
        self._scales = scales
        self._factors = factors
        self._zeros = torch.zeros(len(weight), dtype=torch.int32)
        self._bias = bias
        self._prove(steps)

    def __call__(self, x: Tensor) -> Tensor:
        """Return x [..., in] times the weight, plus the bias: [..., out].

        Raises ValueError for x that wants a gradient: rounding has none.
        """
        if x.requires_grad:
            raise ValueError("weights in eight bits have no gradients")
        shape = (*x.shape[:-1], self.out_features)
        if x.numel() == 0:
            return x.new_empty(shape)
        rows, scales = quantize_rows(x.reshape(-1, x.shape[-1]), self._factors)
        sums = _multiply(rows, self._weight, self._scales, self._zeros)
        return widen_rows(sums, scales, self._bias, x.dtype).view(shape)

    def dense(self) -> Tensor:
        """Return the weight [out, in] that is in force, for rows without the factors."""
        steps: Tensor = self._weight.to_dense().T.float()
        return (steps * self._scales[:, None] * self._factors).to(self._dtype)

    def _prove(self, steps: Tensor) -> None:
        """Compare some sums with those of integers, the largest that there are among them."""
        steps = steps[:_PROVED]
        rows = torch.stack([torch.where(steps[0] < 0, 0, 255), torch.arange(steps.shape[1]) % 256])
        sums = (rows - _MIDDLE).double() @ steps.double().T
        found = _multiply(rows.to(torch.uint8), self._weight, self._scales, self._zeros)
        expected = sums * self._scales[:_PROVED]
        error = (found[:, :_PROVED] - expected).abs()
        if not bool((error <= _ROUNDING * expected.abs()).all()):
            raise UnsupportedModelError(f"{_NEEDS} exact sums of bytes; this processor's are not")


def refuse_where_no_int8(
    config: EngineConfig, capabilities: Mapping[str, Any] | None = None
) -> None:
    """Raise UnsupportedModelError where sums of products of bytes are not exact, and fast.

    `capabilities` are the processor's by name, by default those of the one at hand.
    """
    if config.device != "cpu":
        raise UnsupportedModelError(f"{_NEEDS} a CPU, not {config.device}")
    if config.backend == "triton":
        raise UnsupportedModelError(f"{_NEEDS} a backend of the CPU, not Triton")
    found = torch.cpu.get_capabilities() if capabilities is None else capabilities
    if not any(map(found.get, INTEGER_SUMS)):
        raise UnsupportedModelError(f"{_NEEDS} a processor with {' or '.join(INTEGER_SUMS)}")
    if not (has_onednn() and hasattr(torch.ops.onednn, "qlinear_pointwise")):
        raise UnsupportedModelError(f"{_NEEDS} a build of torch with oneDNN")


def _multiply(rows: Tensor, weight: Tensor, scales: Tensor, zeros: Tensor) -> Tensor:
    """Return (rows - 128) times the weight's steps and scales, float32."""
    y: Tensor = torch.ops.onednn.qlinear_pointwise(
        rows, 1.0, _MIDDLE, weight, scales, zeros, None, 1.0, 0, torch.float32, "none", [], ""
    )
    return y
