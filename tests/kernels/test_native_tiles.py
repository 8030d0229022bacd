"""Tiles against products of integers, which are exact; a row's bits beside any others."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from numba import carray

from kernels.native.kernel import Kernel, record
from kernels.native.scalars import elements, floats, take, untyped
from kernels.native.tiles import (
    COLUMNS,
    LANES,
    ROWS,
    add_narrow,
    add_wide,
    largest,
    set_narrow,
    set_wide,
)

OPERANDS = record("c", "a", "b", "depth", "columns")
NUMBERS = record("out", "x", "count")


def _set(pointer: Any) -> None:
    o = carray(untyped(pointer), (1,), OPERANDS)[0]
    c, a, b = floats(o.c), elements(o.a, pointer), elements(o.b, pointer)
    while True:
        if take(pointer) >= o.tasks:
            return
        if o.columns == COLUMNS:
            set_wide(c, 0, COLUMNS, a, 0, o.depth, b, 0, COLUMNS, o.depth)
        else:
            set_narrow(c, 0, LANES, a, 0, o.depth, b, 0, LANES, o.depth)


def _add(pointer: Any) -> None:
    o = carray(untyped(pointer), (1,), OPERANDS)[0]
    c, a, b = floats(o.c), elements(o.a, pointer), elements(o.b, pointer)
    while True:
        if take(pointer) >= o.tasks:
            return
        if o.columns == COLUMNS:
            add_wide(c, 0, COLUMNS, a, 0, o.depth, b, 0, COLUMNS, o.depth)
        else:
            add_narrow(c, 0, LANES, a, 0, o.depth, b, 0, LANES, o.depth)


def _find(pointer: Any) -> None:
    o = carray(untyped(pointer), (1,), NUMBERS)[0]
    out, x = floats(o.out), floats(o.x)
    while True:
        if take(pointer) >= o.tasks:
            return
        out[0] = largest(x, 0, o.count)


SET, ADD = Kernel(_set, OPERANDS), Kernel(_add, OPERANDS)
FIND = Kernel(_find, NUMBERS, only=torch.float32)


def multiply(kernel: Kernel, c: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Run one tile into c."""
    addresses = (each.data_ptr() for each in (c, a, b))
    kernel(a.dtype, 1, 1, *addresses, a.shape[1], c.shape[1])
    return c


def draw(*shape: int, dtype: torch.dtype) -> torch.Tensor:
    """Draw integers that every type has, and whose sums float32 has."""
    generator = torch.Generator().manual_seed(7)
    return torch.randint(-60, 61, shape, generator=generator).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("columns", [COLUMNS, LANES])
@pytest.mark.parametrize("depth", [0, 1, 7, 300])
def test_products_of_integers_are_exact(depth: int, columns: int, dtype: torch.dtype) -> None:
    """Set where something else stood, and added to what stands."""
    a, b = draw(ROWS, depth, dtype=dtype), draw(depth, columns, dtype=dtype)
    before = draw(ROWS, columns, dtype=torch.float32)
    expected = (a.double() @ b.double()).float()
    assert torch.equal(multiply(SET, before.clone(), a, b), expected)
    assert torch.equal(multiply(ADD, before.clone(), a, b), expected + before)


@pytest.mark.parametrize("columns", [COLUMNS, LANES])
def test_a_row_has_its_bits_in_every_place(columns: int) -> None:
    """Numbers that are rounded at each step: another order of a sum would show."""
    generator = torch.Generator().manual_seed(8)
    a = torch.randn(ROWS, 100, generator=generator)
    b = torch.randn(100, COLUMNS, generator=generator)[:, :columns].contiguous()
    together = multiply(SET, torch.empty(ROWS, columns), a, b)
    for turn in range(ROWS):
        turned = multiply(SET, torch.empty(ROWS, columns), a.roll(turn, 0).contiguous(), b)
        assert torch.equal(turned, together.roll(turn, 0))


def test_wide_and_narrow_tiles_agree_in_every_bit() -> None:
    """A column's sum is the same sum in both."""
    generator = torch.Generator().manual_seed(9)
    a, b = (torch.randn(*shape, generator=generator) for shape in ((ROWS, 90), (90, COLUMNS)))
    wide = multiply(SET, torch.empty(ROWS, COLUMNS), a, b)
    for first in range(0, COLUMNS, LANES):
        own = b[:, first : first + LANES].contiguous()
        narrow = multiply(SET, torch.empty(ROWS, LANES), a, own)
        assert torch.equal(narrow, wide[:, first : first + LANES])


@pytest.mark.parametrize("count", [LANES, 64])
def test_the_largest_of_some_numbers(count: int) -> None:
    """In every place; infinite ones count, NaN does not."""
    found = torch.empty(1)
    for place in range(count):
        x = -torch.rand(count, generator=torch.Generator().manual_seed(place)) - 1
        x[place - 1] = torch.nan
        for value in (-0.5, torch.inf):
            x[place] = value
            FIND(torch.float32, 1, 1, found.data_ptr(), x.data_ptr(), count)
            assert found.item() == value
    nothing = torch.full((count,), -torch.inf)
    FIND(torch.float32, 1, 1, found.data_ptr(), nothing.data_ptr(), count)
    assert found.item() == -torch.inf
