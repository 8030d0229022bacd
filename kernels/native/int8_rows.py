"""Rows in eight bits and back, for products with weights in eight bits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numba import carray

from aril.kernels.native.kernel import Kernel, record
from aril.kernels.native.scalars import (
    as_float,
    bytes_at,
    elements,
    floats,
    load,
    size_bits,
    store,
    take,
    untyped,
)

if TYPE_CHECKING:
    from torch import Tensor

_QUANTIZE = record("out", "scales", "x", "factors", "width", "x_row")
_WIDEN = record("out", "sums", "scales", "bias", "width")


# A row of numbers below this is one of zeros, one with a number above the other is not finite: 127
# over the largest, and times it, would be no float32.
_LEAST, _MOST = np.float32(1e-36), np.float32(1e36)


def quantize_rows(x: Tensor, factors: Tensor) -> tuple[Tensor, Tensor]:
    """Return x [T, n] times `factors` as uint8 around 128, and each row's scale, float32 [T].

    A row's largest product becomes 127 steps of its scale, and each lies half a step away at most.
    The scale of a row with one that is not finite, or above 1e36, is NaN. x has adjacent columns,
    `factors` [n] are float32.
    """
    rows, width = x.shape
    out = torch.empty(rows, width, dtype=torch.uint8)
    scales = torch.empty(rows, dtype=torch.float32)
    _QUANTIZE_ROWS(
        x.dtype,
        rows,
        4 * rows * width,
        out.data_ptr(),
        scales.data_ptr(),
        x.data_ptr(),
        factors.data_ptr(),
        width,
        x.stride(0),
    )
    return out, scales


def widen_rows(sums: Tensor, scales: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Return sums [T, n] times the rows' scales [T], plus bias [n], rounded once to a type.

    All are float32 and contiguous, the bias of the type that is returned.
    """
    rows, width = sums.shape
    out = torch.empty(rows, width, dtype=dtype)
    _WIDEN_ROWS(
        dtype,
        rows,
        2 * rows * width,
        out.data_ptr(),
        sums.data_ptr(),
        scales.data_ptr(),
        0 if bias is None else bias.data_ptr(),
        width,
    )
    return out


def _quantize(pointer: Any) -> None:
    o = carray(untyped(pointer), (1,), _QUANTIZE)[0]
    x = elements(o.x, pointer)
    out, scales, factors = bytes_at(o.out), floats(o.scales), floats(o.factors)
    while True:
        row = take(pointer)
        if row >= o.tasks:
            return
        base = row * o.x_row
        top = np.int32(0)
        for i in range(o.width):
            top = max(top, size_bits(load(x, base + i) * factors[i]))
        largest = as_float(np.uint32(top))
        if not largest <= _MOST:  # NaN is not, either
            largest = np.float32(np.nan)
        scales[row] = largest / np.float32(127)
        if not largest >= _LEAST:
            for i in range(o.width):
                out[row * o.width + i] = np.uint8(128)
            continue
        steps = np.float32(127) / largest
        for i in range(o.width):
            value = load(x, base + i) * factors[i]
            out[row * o.width + i] = np.uint8(np.int32(value * steps + np.float32(128.5)))


def _widen(pointer: Any) -> None:
    o = carray(untyped(pointer), (1,), _WIDEN)[0]
    out, bias = elements(o.out, pointer), elements(o.bias, pointer)
    sums, scales = floats(o.sums), floats(o.scales)
    while True:
        row = take(pointer)
        if row >= o.tasks:
            return
        base, scale = row * o.width, scales[row]
        if o.bias == 0:
            for i in range(o.width):
                store(out, base + i, sums[base + i] * scale)
        else:
            for i in range(o.width):
                store(out, base + i, sums[base + i] * scale + load(bias, i))


_QUANTIZE_ROWS = Kernel(_quantize, _QUANTIZE)
_WIDEN_ROWS = Kernel(_widen, _WIDEN)
