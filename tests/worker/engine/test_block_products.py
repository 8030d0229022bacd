"""Rows cut into products of few row counts: all rows once, no other counts, at a fair price."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from aril.worker.engine.block_products import (
    BLOCK_ROWS,
    ROW_COUNTS,
    WEIGHT_ROWS,
    cut,
    in_blocks,
    in_pieces,
)

COUNTS = st.sets(st.integers(1, 600), min_size=1, max_size=12).map(lambda each: tuple(sorted(each)))


@given(count=st.integers(1, 3_000), row_counts=COUNTS)
def test_pieces_cover_every_row_once(count: int, row_counts: tuple[int, ...]) -> None:
    """In order, of the counts that are allowed, and only the last one has room to spare."""
    pieces = cut(count, row_counts)
    assert [piece.first for piece in pieces] == [0, *(piece.last for piece in pieces[:-1])]
    assert pieces[-1].last == count
    assert {piece.rows for piece in pieces} <= set(row_counts)
    assert all(piece.last - piece.first == piece.rows for piece in pieces[:-1])
    assert 0 < pieces[-1].last - pieces[-1].first <= pieces[-1].rows


def test_what_it_costs_to_have_few() -> None:
    """Never more than a third beyond the products of the very rows, weights counted."""
    for count in range(1, 1_100):
        bare = count + WEIGHT_ROWS * -(-count // ROW_COUNTS[-1])
        spent = sum(piece.rows + WEIGHT_ROWS for piece in cut(count, ROW_COUNTS))
        assert spent <= 1.34 * bare, count


@pytest.mark.parametrize("rows", [0, 1, BLOCK_ROWS - 1, BLOCK_ROWS, BLOCK_ROWS + 1, 50])
@pytest.mark.parametrize("row_counts", [(BLOCK_ROWS,), ROW_COUNTS, (2, 48)])
def test_products_are_those_of_the_rows(rows: int, row_counts: tuple[int, ...]) -> None:
    """What fills the last piece is not seen, and no product has another number of rows."""
    x = torch.arange(2 * rows * 3, dtype=torch.float32).view(2, rows, 3)
    found = set()

    def multiply(block: torch.Tensor) -> torch.Tensor:
        found.add(len(block))
        return block @ torch.ones(3, 5) + 1

    y = in_pieces(multiply, x, row_counts)
    assert torch.equal(y, x @ torch.ones(3, 5) + 1)
    assert not rows or found <= set(row_counts)
    assert y.is_contiguous()
    if row_counts == (BLOCK_ROWS,):
        assert torch.equal(in_blocks(multiply, x), y)
