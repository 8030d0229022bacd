"""What a step costs, by the row counts of its products."""

from __future__ import annotations

from dataclasses import replace

import pytest

from aril.worker.engine.block_products import ROW_COUNTS
from aril.worker.engine.forward_pass import AttentionLayout
from aril.worker.engine.step_cost import READ_ROWS, TILES_READ_ROWS, Products, StepCost

LAYOUT = AttentionLayout(layer=0, heads=4, kv_heads=2, head_dim=8, scale=1.0, window=None)


def test_tokens_up_to_the_next_row_count_are_free() -> None:
    """Steps cost by what their rows are filled up to, and reading the weights beside."""
    cost = StepCost()
    for low, high in zip((0, *ROW_COUNTS), ROW_COUNTS[:8], strict=False):
        assert {cost(tokens, 1) for tokens in range(low + 1, high + 1)} == {high + READ_ROWS}


def test_a_piece_more_reads_the_weights_once_more() -> None:
    """Where products come in one row count, as they may in invariant mode."""
    cost = StepCost([Products(10, (16,), logits=False)])
    assert [cost(tokens, 1) for tokens in (1, 16, 17, 40)] == [
        pieces * (16 + READ_ROWS) for pieces in (1, 1, 2, 3)
    ]


def test_products_count_by_their_weights_and_by_the_rows_that_they_see() -> None:
    """The output module's of the rows that have logits, all others' of all; tiles' too."""
    cost = StepCost([Products(30, None, logits=False), Products(10, (4, 8), logits=True)])
    of_tiles, of_others = 100 + TILES_READ_ROWS, 4 + READ_ROWS
    assert cost(100, 3) == pytest.approx(0.75 * of_tiles + 0.25 * of_others)
    assert cost(100, 5) - cost(100, 4) == pytest.approx(0.25 * 4)


def test_tiles_are_whole() -> None:
    """A token more is free up to the next tile's end."""
    cost = StepCost([Products(10, None, logits=False)])
    wanted = [rows + TILES_READ_ROWS for rows in (4, 4, 8, 16, 20)]
    assert [cost(tokens, 1) for tokens in (1, 4, 5, 16, 17)] == wanted


def test_a_token_costs_the_more_the_further_it_looks_back() -> None:
    """Not beyond its window or chunk."""
    products = [Products(1_000, ROW_COUNTS, logits=False)]
    far = StepCost(products, [LAYOUT])
    assert far.beside_row(10) < far.beside_row(100) < far.beside_row(1_000)
    for near in (replace(LAYOUT, window=100), replace(LAYOUT, chunk=100)):
        cost = StepCost(products, [near])
        assert cost.beside_row(99) == far.beside_row(99)
        assert cost.beside_row(1_000) == far.beside_row(100)
        both = StepCost(products, [near, LAYOUT])
        assert cost.beside_row(1_000) < both.beside_row(1_000) < 2 * far.beside_row(1_000)
