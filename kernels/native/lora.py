"""The LoRA products of few rows, for all adapters of a batch in one call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numba import carray

from kernels.native.kernel import Kernel, record
from kernels.native.scalars import compiled, elements, floats, int64s, load, store, take, untyped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

COLUMNS = 512  # of y whose sums are held at once

_OPERANDS = record(
    *("y", "x", "y_row", "x_row", "in_features", "slots", "blocks", "rows", "scales"),
    *("scratch", "size", "most"),
)

# An adapter is described to the kernel by int64s: the address of A, the sum of its ranks, how many
# linears it changes, and of each the numbers below.
_HEAD, _EACH = 3, 7


class NativeLinear(NamedTuple):
    """One linear that an adapter changes, as `PackedLinear`; all float32 and contiguous."""

    column: int  # where its columns of x A begin
    output: int  # where its columns of y begin
    b: Tensor  # [r, width], times the scale
    gain: Tensor | None = None  # [width]
    bias: Tensor | None = None  # [width]: what the gain leaves out


class NativeSlots:
    """The adapters of one fused group, as the kernel finds them: an address a slot, 0 for none."""

    def __init__(self, slots: int) -> None:
        self.addresses = torch.zeros(slots, dtype=torch.int64)
        self._ranks = [0] * slots  # sums of them
        self._most: int | None = 0
        self._kept: list[tuple[object, ...]] = [()] * slots

    @property
    def most(self) -> int:
        """The largest sum of an adapter's ranks."""
        if self._most is None:
            self._most = max(self._ranks)
        return self._most

    def load(self, slot: int, a: Tensor, linears: Sequence[NativeLinear]) -> None:
        """Put an adapter into a slot: A [in, sum of ranks] float32, contiguous, and its linears."""
        numbers = [a.data_ptr(), a.shape[1], len(linears)]
        for linear in linears:
            numbers += [linear.column, len(linear.b), linear.output, linear.b.shape[1]]
            vectors = (linear.b, linear.gain, linear.bias)
            numbers += [0 if each is None else each.data_ptr() for each in vectors]
        described = torch.tensor(numbers, dtype=torch.int64)
        self._kept[slot] = (a, *linears, described)  # what is pointed to
        self._set(slot, a.shape[1], described.data_ptr())

    def clear(self, slot: int) -> None:
        """Empty a slot."""
        self._set(slot, 0, 0)
        self._kept[slot] = ()

    def _set(self, slot: int, ranks: int, address: int) -> None:
        self._ranks[slot], self._most = ranks, None
        self.addresses[slot] = address


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
        self._scratch = torch.empty(0)

    def scratch(self, size: int) -> int:
        """Return the address of so many float32 that a call may write to."""
        if len(self._scratch) < size:
            self._scratch = torch.empty(size, dtype=torch.float32)
        return self._scratch.data_ptr()


def add_lora_(y: Tensor, x: Tensor, slots: NativeSlots, blocks: NativeBlocks) -> None:
    """Add scale · (x A) B to y [T, width], and apply gains; in fp32, rounded once.

    x [T, in]; both of one type, with adjacent columns. Each row is added alone: its bits do not
    depend on the others.
    """
    ranks, tasks = slots.most, blocks.count
    if not ranks or not tasks:
        return
    size = blocks.most * ranks + COLUMNS
    (y_row, _), (x_row, _) = y.stride(), x.stride()
    in_features = x.shape[1]
    _ADD(
        y.dtype,
        tasks,
        blocks.rows * ranks * (in_features + y.shape[1]),
        y.data_ptr(),
        x.data_ptr(),
        y_row,
        x_row,
        in_features,
        slots.addresses.data_ptr(),
        *blocks.addresses,
        blocks.scratch(tasks * size),
        size,
        blocks.most,
    )


def _add(pointer: Any) -> None:
    o = carray(untyped(pointer), (1,), _OPERANDS)[0]
    y, x = elements(o.y, pointer), elements(o.x, pointer)
    slots, blocks, rows = int64s(o.slots), int64s(o.blocks), int64s(o.rows)
    scales = floats(o.scales)
    while True:
        task = take(pointer)
        if task >= o.tasks:
            return
        address = slots[blocks[3 * task]]
        if address == 0:
            continue
        first, count = blocks[3 * task + 1], blocks[3 * task + 2]
        adapter = int64s(address)
        a, ranks = floats(adapter[0]), adapter[1]
        own = floats(o.scratch + task * o.size * 4)
        for i in range(count * ranks):
            own[i] = np.float32(0)
        for k in range(0, o.in_features - 3, 4):
            for i in range(count):
                _shrink_four(own, i * ranks, x, rows[first + i] * o.x_row + k, a, k * ranks, ranks)
        for k in range(o.in_features // 4 * 4, o.in_features):
            for i in range(count):
                value = load(x, rows[first + i] * o.x_row + k)
                for r in range(ranks):
                    own[i * ranks + r] += value * a[k * ranks + r]
        if o.scales != 0:
            for i in range(count):
                for r in range(ranks):
                    own[i * ranks + r] *= scales[first + i]
        for n in range(adapter[2]):
            linear = int64s(address + (_HEAD + n * _EACH) * 8)
            column, rank, output, width = linear[0], linear[1], linear[2], linear[3]
            b, gain, bias = floats(linear[4]), floats(linear[5]), floats(linear[6])
            sums = o.most * ranks
            for c in range(0, width, COLUMNS):
                columns = min(COLUMNS, width - c)
                for i in range(count):
                    z = i * ranks + column
                    _expand(own, sums, z, b, c, rank, width, columns)
                    base = rows[first + i] * o.y_row + output + c
                    if linear[5] == 0:
                        _add_plain(y, base, own, sums, columns)
                    else:
                        has_bias = linear[6] != 0
                        _add_scaled(y, base, own, sums, columns, gain, bias, c, has_bias)


@compiled
def _shrink_four(own: Any, z: Any, x: Any, base: Any, a: Any, at: Any, ranks: Any) -> None:
    x0, x1, x2, x3 = load(x, base), load(x, base + 1), load(x, base + 2), load(x, base + 3)
    second, third, fourth = at + ranks, at + 2 * ranks, at + 3 * ranks
    for r in range(ranks):
        one = x0 * a[at + r] + x1 * a[second + r]
        own[z + r] += one + x2 * a[third + r] + x3 * a[fourth + r]


@compiled
def _expand(
    own: Any, sums: Any, z: Any, b: Any, c: Any, rank: Any, width: Any, columns: Any
) -> None:
    """Make the sums of z times these columns of B [rank, width]."""
    for j in range(columns):
        own[sums + j] = np.float32(0)
    for r in range(0, rank - 3, 4):
        z0, z1, z2, z3 = own[z + r], own[z + r + 1], own[z + r + 2], own[z + r + 3]
        first = r * width + c
        second, third, fourth = first + width, first + 2 * width, first + 3 * width
        for j in range(columns):
            one = z0 * b[first + j] + z1 * b[second + j]
            own[sums + j] += one + z2 * b[third + j] + z3 * b[fourth + j]
    for r in range(rank // 4 * 4, rank):
        value = own[z + r]
        for j in range(columns):
            own[sums + j] += value * b[r * width + c + j]


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
