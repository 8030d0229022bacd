"""The LoRA products of a step's rows, for all adapters in one call, by tiles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numba import carray

from aril.kernels.native.kernel import Kernel, record
from aril.kernels.native.scalars import (
    compiled,
    elements,
    floats,
    int64s,
    load,
    own_number,
    store,
    take,
    untyped,
)
from aril.kernels.native.strips import filled_columns, in_strips, set_product
from aril.kernels.program import settle

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

AT_ONCE = 512  # columns of y whose sums are held: whole tiles

_OPERANDS = record(
    *("y", "x", "y_row", "x_row", "in_features", "slots", "blocks", "rows", "scales"),
    *("scratch", "size", "sums"),
)

# An adapter is described to the kernel by int64s: the addresses of A and of its columns' scales,
# how many these are, how many linears it changes, and of each the numbers that `load` gives.
_HEAD, _EACH = 4, 7


class NativeLinear(NamedTuple):
    """One linear that an adapter changes, as `PackedLinear`."""

    column: int  # where its columns of x A begin
    output: int  # where its columns of y begin
    b: Tensor  # [r, width]
    scale: float = 1.0  # of x A B
    gain: Tensor | None = None  # float32 [width]
    bias: Tensor | None = None  # float32 [width]: what the gain leaves out


class NativeSlots:
    """The adapters of one fused group, as the kernel finds them: an address a slot, 0 for none.

    Weights are kept in `dtype`, that of the rows.
    """

    def __init__(self, slots: int, dtype: torch.dtype) -> None:
        self._addresses = torch.zeros(slots, dtype=torch.int64)
        self.address = self._addresses.data_ptr()
        self._dtype = dtype
        self._columns = [0] * slots  # of A
        self._most: int | None = 0
        self._kept: list[tuple[object, ...]] = [()] * slots

    @property
    def most(self) -> int:
        """The most columns of an adapter's A."""
        if self._most is None:
            self._most = max(self._columns)
        return self._most

    def load(self, slot: int, a: Tensor, linears: Sequence[NativeLinear]) -> None:
        """Put an adapter into a slot: A [in, sum of ranks], and its linears."""
        columns = filled_columns(a.shape[1])
        a, scales = in_strips(a.to(self._dtype)), torch.ones(columns)
        kept: list[object] = [a, scales]
        numbers = [a.data_ptr(), scales.data_ptr(), columns, len(linears)]
        for linear in linears:
            rank, width = linear.b.shape
            scales[linear.column : linear.column + rank] = linear.scale
            b = in_strips(linear.b.to(self._dtype))
            numbers += [linear.column, rank, linear.output, width]
            vectors = (b, linear.gain, linear.bias)
            numbers += [0 if each is None else each.data_ptr() for each in vectors]
            kept += vectors
        described = torch.tensor(numbers, dtype=torch.int64)
        self._kept[slot] = (*kept, described)  # what is pointed to
        self._set(slot, columns, described.data_ptr())

    def clear(self, slot: int) -> None:
        """Empty a slot."""
        self._set(slot, 0, 0)
        self._kept[slot] = ()

    def _set(self, slot: int, columns: int, address: int) -> None:
        self._columns[slot], self._most = columns, None
        self._addresses[slot] = address


class NativeBlocks:
    """The rows of a batch by adapter, a block a task, which reads the weights once for all.

    A step's layers share one: its addresses are read once.
    """

    def __init__(self, blocks: Tensor, rows: Tensor, scales: Tensor | None, most: int) -> None:
        """Take blocks of up to `most` rows, int64 [n, 3]: slot, first of `rows`, how many.

        `rows` int64 [rows with adapters] are into y and x; `scales` float32, one of each; None: 1.
        All contiguous.
        """
        self.count, self.rows, self.most = len(blocks), len(rows), most
        scale = 0 if scales is None else scales.data_ptr()
        self.addresses = blocks.data_ptr(), rows.data_ptr(), scale
        self._kept = blocks, rows, scales  # what is pointed to
        self._scratch, self._room = torch.empty(0), 0

    def scratch(self, size: int) -> int:
        """Return the address of so many float32 that a call may write to."""
        if size > self._room:
            settle()
            self._scratch, self._room = torch.empty(size, dtype=torch.float32), size
        return self._scratch.data_ptr()


def add_lora_(y: Tensor, x: Tensor, slots: NativeSlots, blocks: NativeBlocks) -> None:
    """Add scale · (x A) B to y [T, width], and apply gains; in fp32, rounded once.

    x [T, in]; both of the slots' type, with adjacent columns. Each row is added alone: its bits do
    not depend on the others.
    """
    columns, tasks = slots.most, blocks.count
    if not columns or not tasks:
        return
    (y_row, _), (x_row, _) = y.stride(), x.stride()
    in_features = x.shape[1]
    before = blocks.most * (in_features + columns)
    size = before + blocks.most * AT_ONCE
    _ADD(
        y.dtype,
        tasks,
        blocks.rows * columns * (in_features + y.shape[1]),
        y.data_ptr(),
        x.data_ptr(),
        y_row,
        x_row,
        in_features,
        slots.address,
        *blocks.addresses,
        blocks.scratch(torch.get_num_threads() * size),
        size,
        before,
    )


def _add(pointer: Any) -> None:
    o = carray(untyped(pointer), (1,), _OPERANDS)[0]
    y, x = elements(o.y, pointer), elements(o.x, pointer)
    slots, blocks, rows = int64s(o.slots), int64s(o.blocks), int64s(o.rows)
    scales, width = floats(o.scales), o.in_features
    own = floats(o.scratch + own_number(pointer) * o.size * 4)  # rows of x, of x A, of sums
    while True:
        task = take(pointer)
        if task >= o.tasks:
            return
        address = slots[blocks[3 * task]]
        if address == 0:
            continue
        first, count = blocks[3 * task + 1], blocks[3 * task + 2]
        adapter = int64s(address)
        a, factors, ranks = elements(adapter[0], pointer), floats(adapter[1]), adapter[2]
        for i in range(count):
            for k in range(width):
                own[i * width + k] = load(x, rows[first + i] * o.x_row + k)
        shrunk = count * width
        set_product(own, shrunk, ranks, own, 0, width, a, 0, width, count, ranks)
        for i in range(count):
            scale = scales[first + i] if o.scales != 0 else np.float32(1)
            for r in range(ranks):
                own[shrunk + i * ranks + r] *= scale * factors[r]
        for n in range(adapter[3]):
            linear = int64s(address + (_HEAD + n * _EACH) * 8)
            column, rank, output, outputs = linear[0], linear[1], linear[2], linear[3]
            b, gain, bias = elements(linear[4], pointer), floats(linear[5]), floats(linear[6])
            z = shrunk + column
            for c in range(0, outputs, AT_ONCE):
                columns = min(AT_ONCE, outputs - c)
                at = c * rank
                set_product(own, o.sums, AT_ONCE, own, z, ranks, b, at, rank, count, columns)
                for i in range(count):
                    base = rows[first + i] * o.y_row + output + c
                    delta = o.sums + i * AT_ONCE
                    if linear[5] == 0:
                        _add_plain(y, base, own, delta, columns)
                    else:
                        has_bias = linear[6] != 0
                        _add_scaled(y, base, own, delta, columns, gain, bias, c, has_bias)


@compiled
def _add_plain(y: Any, base: Any, delta: Any, at: Any, columns: Any) -> None:
    for j in range(columns):
        store(y, base + j, load(y, base + j) + delta[at + j])


@compiled
def _add_scaled(
    y: Any, base: Any, delta: Any, at: Any, columns: Any, gain: Any, bias: Any, c: Any, has: Any
) -> None:
    for j in range(columns):
        beta = bias[c + j] if has else np.float32(0)
        total = load(y, base + j) - beta + delta[at + j]
        store(y, base + j, total * gain[c + j] + beta)


_ADD = Kernel(_add, _OPERANDS)
