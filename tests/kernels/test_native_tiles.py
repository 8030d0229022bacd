"""Tiles against products of integers, which are exact; each number's bits in any place."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numba import carray

from aril.kernels.native.kernel import Kernel, record
from aril.kernels.native.scalars import elements, floats, take, untyped
from aril.kernels.native.strips import filled_columns, in_strips, set_product
from aril.kernels.native.tiles import (
    COLUMNS,
    LANES,
    ROWS,
    add_narrow,
    add_wide,
    largest,
    set_wide,
)

OPERANDS = record("c", "a", "b", "depth", "columns")
PRODUCT = record("c", "a", "b", "pitch", "depth", "rows", "columns")
NUMBERS = record("out", "x", "count")


def _set(pointer: Any) -> None:
    o = carray(untyped(pointer), (1,), OPERANDS)[0]
    c, a, b = floats(o.c), elements(o.a, pointer), elements(o.b, pointer)
    while True:
        if take(pointer) >= o.tasks:
            return
        set_wide(c, 0, COLUMNS, a, 0, o.depth, b, 0, COLUMNS, o.depth)


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


def _product(pointer: Any) -> None:
    o = carray(untyped(pointer), (1,), PRODUCT)[0]
    c, a, b = floats(o.c), elements(o.a, pointer), elements(o.b, pointer)
    while True:
        if take(pointer) >= o.tasks:
            return
        set_product(c, 0, o.pitch, a, 0, o.depth, b, 0, o.depth, o.rows, o.columns)


def _find(pointer: Any) -> None:
    o = carray(untyped(pointer), (1,), NUMBERS)[0]
    out, x = floats(o.out), floats(o.x)
    while True:
        if take(pointer) >= o.tasks:
            return
        out[0] = largest(x, 0, o.count)


SET, ADD = Kernel(_set, OPERANDS), Kernel(_add, OPERANDS)
PRODUCTS = Kernel(_product, PRODUCT)
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


def multiplied(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Multiply any number of rows by strips of any number of columns."""
    (rows, depth), columns = a.shape, b.shape[1]
    c = torch.full((rows + 1, filled_columns(columns)), -7.0)
    strips = in_strips(b)
    addresses = (each.data_ptr() for each in (c, a, strips))
    PRODUCTS(a.dtype, 1, 1, *addresses, c.shape[1], depth, rows, columns)
    assert bool((c[rows] == -7).all()), "a row behind the last one"
    return c[:rows, :columns]


DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])


@DTYPES
@pytest.mark.parametrize("depth", [0, 1, 7, 300])
def test_tiles_of_integers_are_exact(depth: int, dtype: torch.dtype) -> None:
    """Set where something else stood, and added to what stands."""
    for columns, kernels in ((COLUMNS, (SET, ADD)), (LANES, (ADD,))):
        a, b = draw(ROWS, depth, dtype=dtype), draw(depth, columns, dtype=dtype)
        before = draw(ROWS, columns, dtype=torch.float32)
        expected = (a.double() @ b.double()).float()
        for kernel in kernels:
            found = multiply(kernel, before.clone(), a, b)
            assert torch.equal(found, expected + before if kernel is ADD else expected)


@DTYPES
@given(
    rows=st.integers(1, 2 * ROWS + 3),
    columns=st.integers(1, 2 * COLUMNS + 5),
    depth=st.integers(1, 40),
)
def test_products_of_integers_are_exact(
    rows: int, columns: int, depth: int, dtype: torch.dtype
) -> None:
    """Any shape; nothing is written behind its rows."""
    a, b = draw(rows, depth, dtype=dtype), draw(depth, columns, dtype=dtype)
    assert torch.equal(multiplied(a, b), (a.double() @ b.double()).float())


@given(rows=st.integers(1, 2 * ROWS + 3), columns=st.integers(1, 2 * COLUMNS + 5))
def test_a_number_has_its_bits_in_every_place(rows: int, columns: int) -> None:
    """Sums that are rounded at each step: another order would show; alone and in any tile."""
    generator = torch.Generator().manual_seed(8)
    a = torch.randn(rows, 100, generator=generator)
    b = torch.randn(100, columns, generator=generator)
    together = multiplied(a, b)
    first, last = multiplied(a[:1].contiguous(), b), multiplied(a, b[:, -1:].contiguous())
    assert torch.equal(first, together[:1])
    assert torch.equal(last, together[:, -1:])
    assert torch.equal(multiplied(a.flip(0).contiguous(), b), together.flip(0))


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
