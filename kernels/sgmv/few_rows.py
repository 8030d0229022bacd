"""A segment of few rows in fp32 on the CPU: numpy's products, into buffers that a step shares.

A decode step calls this for every adapter and every group of linears, thousands of times a second,
and each product is so small that its call counts: numpy's cost half of torch's, views are made once
a step and not once a call, and nothing is allocated. Decision 020 has the figures.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy import add, matmul

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from kernels.sgmv.segments import LiveSlice

    Array = NDArray[np.float32]

# Rows that lie apart are added one by one where they are few or wide; else gathered and put back.
FEW_APART = 4
WIDE = 2048


class Buffers(NamedTuple):
    """Room for one segment: x[rows] A, its columns by linear, the sums for y, theirs by linear."""

    shrunk: Array  # [n, sum of ranks]
    columns: list[Array]
    delta: Array  # [n, width of the group]
    outputs: list[Array]


class Scratch:
    """The buffers of one step, used by one segment after another. For one thread at a time."""

    def __init__(self) -> None:
        self._buffers: dict[tuple[int, Layout], Buffers] = {}
        self._shrunk = np.empty(0, np.float32)
        self._delta = np.empty(0, np.float32)

    def of(self, rows: int, layout: Layout) -> Buffers:
        """Return the buffers for this many rows of an adapter; what is in them is anything."""
        found = self._buffers.get((rows, layout))
        if found is None:
            found = self._buffers[rows, layout] = self._make(rows, layout)
        return found

    def _make(self, rows: int, layout: Layout) -> Buffers:
        if rows * layout.ranks > self._shrunk.size:
            self._shrunk = np.empty(rows * layout.ranks, np.float32)
        if rows * layout.width > self._delta.size:
            self._delta = np.empty(rows * layout.width, np.float32)
        shrunk = self._shrunk[: rows * layout.ranks].reshape(rows, layout.ranks)
        delta = self._delta[: rows * layout.width].reshape(rows, layout.width)
        return Buffers(
            shrunk,
            [shrunk[:, columns] for columns in layout.columns],
            delta,
            [delta[:, outputs] for outputs in layout.outputs],
        )


class Layout:
    """Where the linears of a group lie in the shrunk rows and in y.

    The layers of a model share theirs, see `layout_of`, so that a look-up costs an address's hash.
    """

    def __init__(self, places: tuple[tuple[int, int, int, int], ...], width: int) -> None:
        self.columns = [slice(first, last) for first, last, _, _ in places]
        self.outputs = [slice(first, last) for _, _, first, last in places]
        self.ranks = places[-1][1]
        self.width = width


@lru_cache(maxsize=4096)
def layout_of(places: tuple[tuple[int, int, int, int], ...], width: int) -> Layout:
    """Return the one layout for these columns (first, past the last) and outputs (likewise)."""
    return Layout(places, width)


class FewRows:
    """One adapter's weights as numpy sees them; the memory is the tensors'."""

    __slots__ = ("_a", "_b", "_gains", "_has_gain", "_layout", "_scales", "_whole")

    def __init__(self, a: Array, slices: Sequence[LiveSlice], width: int) -> None:
        self._a = a
        self._b = [part.b.numpy() for part in slices]
        self._layout = layout_of(
            tuple(
                (part.columns.start, part.columns.stop, part.outputs.start, part.outputs.stop)
                for part in slices
            ),
            width,
        )
        # Packed weights carry the scale already, see `LiveSlice.scaled`.
        self._scales = None
        if any(part.scale != 1.0 for part in slices):
            scales = np.array([part.scale for part in slices], np.float32)
            self._scales = np.repeat(scales, [part.b.shape[0] for part in slices])
        self._gains = [_gain(part) for part in slices]
        has_gain = any(part.gain is not None for part in slices)
        self._whole = sum(part.b.shape[1] for part in slices) == width and not has_gain
        self._has_gain = has_gain

    def add_(self, y: Array, x: Array, rows: slice | Tensor, count: int, scratch: Scratch) -> None:
        """Add the LoRA product of x[rows] to y[rows], in place; `count` is how many rows."""
        places = rows if isinstance(rows, slice) else rows.numpy()
        shrunk, columns, delta, outputs = scratch.of(count, self._layout)
        matmul(x[places], self._a, shrunk)
        if self._scales is not None:
            np.multiply(shrunk, self._scales, shrunk)
        for column, b, output in zip(columns, self._b, outputs, strict=True):
            matmul(column, b, output)
        if self._whole:
            _add_(y, delta, places)
        elif self._has_gain:
            self._add_scaled_(y, outputs, places)
        else:
            for output, place in zip(outputs, self._layout.outputs, strict=True):
                _add_(y[:, place], output, places)

    def _add_scaled_(self, y: Array, deltas: Sequence[Array], rows: slice | Array) -> None:
        for delta, outputs, (gain, bias) in zip(
            deltas, self._layout.outputs, self._gains, strict=True
        ):
            own = y[rows, outputs]
            np.add(delta, own if bias is None else own - bias, delta)
            if gain is not None:
                np.multiply(delta, gain, delta)
            if bias is not None:
                np.add(delta, bias, delta)
            y[rows, outputs] = delta


def _add_(y: Array, delta: Array, rows: slice | Array) -> None:
    if isinstance(rows, slice):
        own = y[rows]
        add(own, delta, own)
    elif len(rows) <= FEW_APART or delta.shape[1] >= WIDE:
        for row, part in zip(rows, delta, strict=True):
            own = y[row]
            np.add(own, part, own)
    else:
        np.add(delta, y[rows], delta)
        y[rows] = delta


def _gain(part: LiveSlice) -> tuple[Array | None, Array | None]:
    if part.gain is None:
        return None, None
    return part.gain.numpy(), None if part.bias is None else part.bias.float().numpy()
