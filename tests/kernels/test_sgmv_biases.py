"""Biases of slots: each row gets that of its slot, and all else keeps its bits."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from aril.kernels.sgmv import GroupShape, LoraPair, SlotBiases, make_plan

SHAPE = GroupShape(in_features=4, widths=(3, 2), max_rank=2)


def pair(width: int, bias: torch.Tensor | None) -> LoraPair:
    """Return a pair of which only the bias counts."""
    return LoraPair(torch.zeros(1, 4), torch.zeros(width, 1), scale=0.5, bias=bias)


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_each_row_gets_its_slots_bias(dtype: torch.dtype, static: bool) -> None:
    """In its linear's columns; without adapter or bias nothing changes, not even -0."""
    biases = SlotBiases(SHAPE, 3, device=torch.device("cpu"), dtype=dtype)
    biases.load(0, [pair(3, torch.tensor([1.0, 2.0, 3.0])), None])
    biases.load(2, [None, pair(2, torch.tensor([2.0, -2.0]))])
    y = torch.full((5, 5), -0.0, dtype=dtype)
    y[0] = 1
    plan = make_plan(torch.tensor([0, -1, 2, 1, 0], dtype=torch.int32), slots=3, static=static)
    biases.add_(y, plan)
    assert y.tolist() == [
        [2, 3, 4, 1, 1],
        [0] * 5,
        [0, 0, 0, 2, -2],
        [0] * 5,
        [1, 2, 3, 0, 0],
    ]
    assert y[1].signbit().all()
    assert y[3].signbit().all()


def test_a_slot_keeps_nothing_of_what_was_in_it() -> None:
    """A new adapter's biases take the place of all of the old one's."""
    biases = SlotBiases(SHAPE, 1, device=torch.device("cpu"), dtype=torch.float32)
    biases.load(0, [pair(3, torch.ones(3)), pair(2, torch.ones(2))])
    biases.load(0, [None, pair(2, torch.ones(2))])
    y = torch.zeros(1, 5)
    plan = make_plan(torch.tensor([0], dtype=torch.int32), slots=1)
    biases.add_(y, plan)
    assert y.tolist() == [[0, 0, 0, 1, 1]]


def test_a_bias_that_does_not_fit() -> None:
    """It is refused with its shape, like all else of a pair."""
    with pytest.raises(ValueError, match=r"bias \(4,\) doesn't fit \[3\]"):
        SHAPE.check([pair(3, torch.ones(4)), None])


def test_a_rows_scale_scales_what_belongs_to_b() -> None:
    """The rest of a bias, that of the backbone trained on, is added as it is."""
    biases = SlotBiases(SHAPE, 2, device=torch.device("cpu"), dtype=torch.float32)
    whole = replace(pair(3, torch.tensor([5.0, 6.0, 7.0])), scaled_bias=torch.full((3,), 4.0))
    biases.load(0, [whole, pair(2, torch.ones(2))])
    ids = torch.tensor([0, 0, 1, 0], dtype=torch.int32)
    plan = make_plan(ids, slots=2, row_scales=torch.tensor([0.5, 1.0, 3.0, 0.0]))
    y = torch.zeros(4, 5)
    biases.add_(y, plan)
    assert y.tolist() == [[3, 4, 5, 1, 1], [5, 6, 7, 1, 1], [0] * 5, [1, 2, 3, 1, 1]]
    biases.load(0, [None, pair(2, torch.ones(2))])
    y.zero_()
    biases.add_(y, plan)
    assert y[0].tolist() == [0, 0, 0, 1, 1]
