"""A linear's product by tiles: a row's bits are the same whatever rows are beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch
from numba import carray

from aril.kernels.native.dense_tiles import COLUMNS, TALL, VECTORS, has_tiles, strip, terms
from aril.kernels.native.kernel import Kernel, record
from aril.kernels.native.scalars import elements, floats, take, untyped
from aril.kernels.native.tiles import LANES

if TYPE_CHECKING:
    from torch import Tensor

# A task multiplies so many rows by a strip: whole tiles, and less than half of a megabyte, so that
# they stay in the second cache while strips pass by.
_ROWS: Final = 128
_BYTES: Final = 400_000

_OPERANDS = record(
    *("out", "x", "weight", "bias", "rows", "columns", "depth", "out_row", "x_row"),
    *("strips", "at_once", "threads_ahead"),
)


class Dense:
    """Weight [out, in] and bias of a linear, laid out in strips of columns as tiles read them."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """Copy a weight for which `can_multiply` has said yes."""
        self.columns, self.depth = weight.shape
        self.dtype = weight.dtype
        self._step = terms(weight.dtype)
        whole = self.columns - self.columns % COLUMNS
        self._weight = torch.empty(weight.numel(), dtype=weight.dtype)
        for first, last in ((0, whole), (whole, self.columns)):
            strips = self._strips(first, last)
            strips.copy_(self._cut(weight[first:last], strips.shape[2]))
        self._bias = torch.zeros(self.columns) if bias is None else bias.float().contiguous()
        self.addresses = self._weight.data_ptr(), self._bias.data_ptr()
        rows = _BYTES // (self.depth * weight.element_size()) // TALL * TALL
        self._at_once = max(TALL, min(_ROWS, rows))

    def multiply(self, out: Tensor, x: Tensor) -> None:
        """Write x [T, in] times the weight, plus the bias, to out [T, out]; of the weight's type.

        Both with adjacent columns. Sums are made in the order of columns of x, in float32.
        """
        rows = len(x)
        strips = -(-self.columns // COLUMNS)
        weights = self.columns * self.depth
        _MULTIPLY(
            self.dtype,
            strips * -(-rows // self._at_once),
            weights * max(rows, 8) // 8,
            out.data_ptr(),
            x.data_ptr(),
            *self.addresses,
            rows,
            self.columns,
            self.depth,
            out.stride(0),
            x.stride(0),
            strips,
            self._at_once,
            torch.get_num_threads(),
        )

    def dense(self) -> Tensor:
        """Return a plain copy of the weight, bit for bit."""
        weight = self._weight.new_empty(self.columns, self.depth)
        whole = self.columns - self.columns % COLUMNS
        for first, last in ((0, whole), (whole, self.columns)):
            strips = self._strips(first, last)
            self._cut(weight[first:last], strips.shape[2]).copy_(strips)
        return weight

    def _strips(self, first: int, last: int) -> Tensor:
        """Return where columns lie: [strips, in / terms, columns of a strip, terms]."""
        wide = min(COLUMNS, last - first) or COLUMNS
        part = self._weight[first * self.depth : last * self.depth]
        return part.view(-1, self.depth // self._step, wide, self._step)

    def _cut(self, rows: Tensor, wide: int) -> Tensor:
        return rows.view(-1, wide, self.depth // self._step, self._step).transpose(1, 2)


def can_multiply(weight: Tensor) -> bool:
    """Whether a weight [out, in] is of a kind that tiles multiply, here, as fast as any library."""
    columns, depth = weight.shape
    return (
        weight.device.type == "cpu"
        and has_tiles(weight.dtype)
        and columns % LANES == 0 == depth % terms(weight.dtype)
        and weight.numel() > 0
    )


_three, _two, _one = (strip(vectors) for vectors in (VECTORS, 2, 1))


def _multiply(pointer: Any) -> None:
    o = carray(untyped(pointer), (1,), _OPERANDS)[0]
    out, x = elements(o.out, pointer), elements(o.x, pointer)
    w, bias = elements(o.weight, pointer), floats(o.bias)
    out_row, x_row, depth = o.out_row, o.x_row, o.depth
    while True:
        task = take(pointer)
        if task >= o.tasks:
            return
        column = task % o.strips * COLUMNS
        first = task // o.strips * o.at_once
        rows: Any = min(o.at_once, o.rows - first)
        to, of, at = first * out_row + column, first * x_row, column * depth
        # The strip that this thread takes next, where all are as fast.
        ahead = o.threads_ahead * COLUMNS * depth
        left = o.columns - column
        if left >= COLUMNS:
            _three(out, to, out_row, x, of, x_row, w, at, bias, column, depth, ahead, rows)
        elif left == 2 * LANES:
            _two(out, to, out_row, x, of, x_row, w, at, bias, column, depth, ahead, rows)
        else:
            _one(out, to, out_row, x, of, x_row, w, at, bias, column, depth, ahead, rows)


_MULTIPLY = Kernel(_multiply, _OPERANDS, needs=has_tiles)
