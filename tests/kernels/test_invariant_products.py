"""The packed weights in invariant mode: no rank and no width gives a row bits by its place."""

from __future__ import annotations

import pytest
import torch

from aril.kernels.sgmv import GroupShape, LoraPair, make_plan, make_slot_weights
from aril.kernels.sgmv.packed.invariant_products import ROWS_OF_A_BLOCK


@pytest.mark.parametrize("width", [1, 6, 40])
@pytest.mark.parametrize("rank", range(1, 18))
def test_a_row_has_the_same_bits_at_every_place(rank: int, width: int) -> None:
    """Each row of a block moved through all places: libraries take other paths for few columns."""
    generator = torch.Generator().manual_seed(rank)
    a, b, x = (
        torch.randn(shape, generator=generator)
        for shape in ((rank, 48), (width, rank), (ROWS_OF_A_BLOCK, 48))
    )
    weights = make_slot_weights(GroupShape(48, (width,), rank), 1)
    weights.load(0, [LoraPair(a, b, 0.3)])
    plan = make_plan(torch.zeros(ROWS_OF_A_BLOCK, dtype=torch.int32), slots=1, mode="invariant")

    def added(rows: torch.Tensor) -> torch.Tensor:
        y = torch.zeros(ROWS_OF_A_BLOCK, width)
        weights.add_(y, rows, plan)
        return y

    whole = added(x)
    torch.testing.assert_close(whole, 0.3 * x @ a.T @ b.T, rtol=1e-4, atol=1e-4)
    for places in range(1, ROWS_OF_A_BLOCK):
        assert torch.equal(added(x.roll(places, 0)), whole.roll(places, 0))
