"""Which row counts keep a row's bits: found for products that change their mind, and real ones."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import linear

from aril.worker.engine.block_products import BLOCK_ROWS, ROW_COUNTS, in_pieces
from aril.worker.engine.packed_weight import PackedWeight, can_pack
from aril.worker.engine.row_classes import ANCHORS, alike_row_counts, cancelling

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

DTYPES = (torch.float32, torch.bfloat16)
SHAPES = ((24, 64), (40, 65), (576, 192))


def stepping(
    weight: Tensor, steps: Sequence[int], *, by_place: bool = False
) -> Callable[[Tensor], Tensor]:
    """Return a product that sums in another order from each of these row counts on.

    In float32, rounded to the weight's type, as libraries do. `by_place` each row has an order of
    its own.
    """

    def ordered(x: Tensor, order: int) -> Tensor:
        parts = torch.arange(x.shape[1]).tensor_split(order + 1)
        total = torch.zeros(len(x), len(weight))
        for part in parts:
            total = total + (x[:, None, part].float() * weight[None, :, part].float()).sum(-1)
        return total

    def multiply(x: Tensor) -> Tensor:
        order = sum(len(x) >= step for step in steps)
        if not by_place:
            return ordered(x, order).to(weight.dtype)
        rows = [ordered(row[None], at % 3) for at, row in enumerate(x)]
        return torch.cat(rows).to(weight.dtype)

    return multiply


@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=15, deadline=None)
@given(
    shape=st.sampled_from(SHAPES[:2]), steps=st.lists(st.integers(2, 70), max_size=3, unique=True)
)
def test_steps_are_found_exactly(
    dtype: torch.dtype, shape: tuple[int, int], steps: list[int]
) -> None:
    """Those counts that sum as a block's rows do, and no others, in either type."""
    asked = tuple(count for count in ROW_COUNTS if count <= 64)
    found = alike_row_counts(partial(stepping, steps=steps), shape, dtype, asked)

    def order(count: int) -> int:
        return sum(count >= step for step in steps)

    assert found == tuple(count for count in asked if order(count) == order(BLOCK_ROWS))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_alone_is_what_is_left(dtype: torch.dtype) -> None:
    """Where a row's place in a product decides, only products of one row keep its bits."""
    make = partial(stepping, steps=(), by_place=True)
    assert alike_row_counts(make, SHAPES[0], dtype, ROW_COUNTS[:8]) == (ANCHORS[-1],)


def test_a_place_counts_only_where_it_matters() -> None:
    """Two rows are in the class of one while the third place is the first that differs."""

    def make(weight: Tensor) -> Callable[[Tensor], Tensor]:
        plain, other = stepping(weight, ()), stepping(weight, (1,))
        return lambda x: torch.cat([plain(x[:2]), other(x[2:])])

    assert alike_row_counts(make, SHAPES[0], torch.float32, ROW_COUNTS[:6]) == (1, 2)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_numbers_show_rounding_and_nothing_else(
    dtype: torch.dtype, shape: tuple[int, int]
) -> None:
    """Their exact product is zero, and most of what float32 sums make of it is not."""
    weight, rows = cancelling(shape, dtype)
    assert not (rows.double() @ weight.double().T).abs().max() > 1e-12 * shape[1]
    assert (rows.float() @ weight.float().T != 0).float().mean() > 0.5


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(192, 576), (320, 128)])
@pytest.mark.parametrize("packed", [True, False])
def test_real_products_keep_a_rows_bits(
    dtype: torch.dtype, shape: tuple[int, int], packed: bool
) -> None:
    """Rows with other numbers than those of the search, alone and in any company, at any place."""
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(shape, generator=generator).to(dtype)
    if packed and not can_pack(weight):
        pytest.skip("this build of torch packs no weights")

    def make(weight: Tensor) -> Callable[[Tensor], Tensor]:
        return PackedWeight(weight, None) if packed else partial(linear, weight=weight)

    counts = alike_row_counts(make, shape, dtype, tuple(n for n in ROW_COUNTS if n <= 128))
    x = torch.randn(150, shape[1], generator=generator).to(dtype)
    whole = in_pieces(make(weight), x, counts)
    for first, last in ((0, 1), (7, 9), (20, 33), (33, 150), (149, 150)):
        assert torch.equal(in_pieces(make(weight), x[first:last], counts), whole[first:last])
