"""Products with weights by tiles: exact where numbers allow it, a row's bits its own."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from aril.kernels.native import Dense, can_multiply
from aril.kernels.native.dense_tiles import COLUMNS, TALL, has_tiles
from aril.kernels.native.tiles import LANES

TYPES = [
    pytest.param(
        dtype,
        marks=pytest.mark.skipif(not has_tiles(dtype), reason="a library is faster here"),
    )
    for dtype in (torch.float32, torch.bfloat16)
]
# Less than a tile, whole ones, and each rest.
WIDTHS = (LANES, 2 * LANES, COLUMNS, COLUMNS + LANES, 5 * COLUMNS + 2 * LANES)


@pytest.mark.parametrize("dtype", TYPES)
@given(
    rows=st.integers(1, 3 * TALL),
    columns=st.sampled_from(WIDTHS),
    depth=st.integers(1, 40).map(lambda n: 2 * n),
    with_bias=st.booleans(),
    seed=st.integers(0, 1_000),
)
def test_integers_are_exact(
    dtype: torch.dtype, rows: int, columns: int, depth: int, with_bias: bool, seed: int
) -> None:
    """Every sum once; rounded once, as torch rounds it. The memory beside it is left alone."""
    chance = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randint(-8, 9, shape, generator=chance).to(dtype)

    weight, x = drawn(columns, depth), drawn(rows, depth + 6)[:, :depth]
    bias = drawn(columns) if with_bias else None
    out = torch.full((rows + 1, columns + 3), 7.0, dtype=dtype)
    Dense(weight, bias).multiply(out[:rows, :columns], x)
    exact = x.double() @ weight.double().T
    if bias is not None:
        exact += bias.double()
    assert torch.equal(out[:rows, :columns], exact.to(dtype))
    assert bool((out[rows] == 7).all())
    assert bool((out[:, columns:] == 7).all())


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("depth", [2, 64, 1536, 6000])
def test_a_row_keeps_its_bits(dtype: torch.dtype, depth: int) -> None:
    """Alone, in any place, among any number of rows, more than a task takes too."""
    torch.manual_seed(depth)
    dense = Dense(torch.randn(COLUMNS + LANES, depth, dtype=dtype), None)
    x = torch.randn(300, depth, dtype=dtype)
    whole = torch.empty(300, COLUMNS + LANES, dtype=dtype)
    dense.multiply(whole, x)
    for first, last in ((0, 1), (5, 7), (13, 16), (120, 137), (1, 300), (299, 300)):
        part = torch.empty(last - first, COLUMNS + LANES, dtype=dtype)
        dense.multiply(part, x[first:last])
        assert torch.equal(part, whole[first:last])


@pytest.mark.parametrize("dtype", TYPES)
def test_it_is_rounded_as_sums_in_float32_are(dtype: torch.dtype) -> None:
    """Beside the product in float64: a rounding of each of its sums, and one to the type."""
    torch.manual_seed(0)
    weight, x = torch.randn(192, 1536, dtype=dtype), torch.randn(40, 1536, dtype=dtype)
    out = torch.empty(40, 192, dtype=dtype)
    Dense(weight, None).multiply(out, x)
    exact = x.double() @ weight.double().T
    sums = 1536 * 2**-24 * (x.double().abs() @ weight.double().abs().T)
    rounding = torch.finfo(dtype).eps / 2 * exact.abs() + sums
    assert bool(((out.double() - exact).abs() <= rounding).all())


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("columns", WIDTHS)
def test_the_weight_comes_back(dtype: torch.dtype, columns: int) -> None:
    """Bit for bit; digests and DoRA's norms are made from it."""
    weight = torch.randn(columns, 26).to(dtype)
    assert torch.equal(Dense(weight, None).dense(), weight)


@pytest.mark.parametrize("dtype", TYPES)
def test_what_is_not_finite_stays_in_its_row(dtype: torch.dtype) -> None:
    """An adapter that overflows spoils nobody else."""
    weight, x = torch.ones(COLUMNS, 32, dtype=dtype), torch.ones(9, 32, dtype=dtype)
    x[4, 3], x[6, 0] = torch.nan, torch.inf
    out = torch.empty(9, COLUMNS, dtype=dtype)
    Dense(weight, None).multiply(out, x)
    assert bool(out[4].isnan().all())
    assert bool(out[6].isinf().all())
    assert bool((out[[0, 1, 2, 3, 5, 7, 8]] == 32).all())


def test_what_is_left_to_libraries() -> None:
    """Widths that end within a vector, an odd depth in pairs, and other types."""
    assert can_multiply(torch.zeros(LANES, 3)) == has_tiles(torch.float32)
    assert not can_multiply(torch.zeros(LANES + 1, 4))
    assert not can_multiply(torch.zeros(LANES, 3, dtype=torch.bfloat16))
    assert not can_multiply(torch.zeros(LANES, 4, dtype=torch.float16))
    assert not can_multiply(torch.zeros(0, 4))
    assert not can_multiply(torch.zeros(LANES, 4, device="meta"))
