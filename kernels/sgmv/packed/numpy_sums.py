"""How numpy adds a segment's product to y: one way for each kind of adapter.

Which way is the fastest depends on the kind; all add and multiply the same numbers in fp32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from numpy import add, multiply

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kernels.sgmv.packed.adapter import PackedAdapter, PackedLinear
    from kernels.sgmv.packed.scratch import Array, Buffers

# Rows that lie apart are added one by one up to this many, or from this width on; else they are
# gathered and put back.
MOST_ROWS_ONE_BY_ONE = 4
WIDE = 2048


class NumpySum(Protocol):
    """Adds what is in the buffers to these rows of y, a slice or their numbers."""

    def add_(self, y: Array, buffers: Buffers, rows: slice | Array) -> None:
        """Add in place; the buffers may be overwritten."""


def choose_sum(adapter: PackedAdapter) -> NumpySum:
    """Choose by which linears the adapter changes, and whether any has a gain."""
    if any(linear.gain is not None for linear in adapter.linears):
        return ApplyGains(adapter.linears)
    if sum(linear.b.shape[1] for linear in adapter.linears) == adapter.width:
        return AddWhole()
    return AddByLinear(adapter.linears)


class AddWhole:
    """All linears of the group at once: the adapter changes every one."""

    def add_(self, y: Array, buffers: Buffers, rows: slice | Array) -> None:
        """Add the rows over the whole width."""
        _add_rows_(y, buffers.delta, rows)


class AddByLinear:
    """Linear by linear: those that the adapter leaves alone are not touched."""

    def __init__(self, linears: Sequence[PackedLinear]) -> None:
        self._outputs = [linear.outputs for linear in linears]

    def add_(self, y: Array, buffers: Buffers, rows: slice | Array) -> None:
        """Add to each linear's columns of y."""
        for outputs, delta in zip(self._outputs, buffers.outputs, strict=True):
            _add_rows_(y[:, outputs], delta, rows)


class ApplyGains:
    """Linear by linear, times DoRA's gain where there is one; the bias is left out of that."""

    def __init__(self, linears: Sequence[PackedLinear]) -> None:
        self._linears = [(linear.outputs, *_gain_and_bias(linear)) for linear in linears]

    def add_(self, y: Array, buffers: Buffers, rows: slice | Array) -> None:
        """Store each linear's sums, which are made in the buffers."""
        for (outputs, gain, bias), delta in zip(self._linears, buffers.outputs, strict=True):
            own = y[rows, outputs]
            add(delta, own if bias is None else own - bias, delta)
            if gain is not None:
                multiply(delta, gain, delta)
            if bias is not None:
                add(delta, bias, delta)
            y[rows, outputs] = delta


def _gain_and_bias(linear: PackedLinear) -> tuple[Array | None, Array | None]:
    gain, bias = linear.gain, linear.bias
    return (
        None if gain is None else gain.numpy(),
        None if bias is None else bias.float().numpy(),
    )


def _add_rows_(y: Array, delta: Array, rows: slice | Array) -> None:
    if isinstance(rows, slice):
        own = y[rows]
        add(own, delta, own)
    elif len(rows) <= MOST_ROWS_ONE_BY_ONE or delta.shape[1] >= WIDE:
        for row, part in zip(rows, delta, strict=True):
            own = y[row]
            add(own, part, own)
    else:
        add(delta, y[rows], delta)
        y[rows] = delta
