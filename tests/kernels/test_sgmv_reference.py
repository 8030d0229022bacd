"""The four ways of the README give the same answer, and their costs are what it says."""

from __future__ import annotations

import pytest
import torch

from aril.kernels.sgmv.cost import Cost, expand_cost, gather_bmm_cost, sgmv_cost, shrink_cost
from aril.kernels.sgmv.reference import (
    adapter_by_adapter,
    exact,
    gather_bmm,
    row_by_row,
    sgmv,
)
from tests.support.sgmv_cases import make_case


@pytest.mark.parametrize("way", [row_by_row, adapter_by_adapter, gather_bmm, sgmv])
@pytest.mark.parametrize("row_slots", [[1, 0, -1, 2, 0, 0], [2] * 20, [-1], []])
def test_four_ways_one_answer(way: object, row_slots: list[int]) -> None:
    """Each way equals the fp64 definition, with and without rows that have no adapter."""
    case = make_case(row_slots, [[4], [4], [4]], in_features=9, widths=[7], dtype=torch.float64)
    expected, _ = exact(case.x, case.a, case.b, case.ranks, case.scales, case.row_slots)
    assert callable(way)
    result = way(case.x, case.a, case.b[0], case.scales[:, 0].double(), case.row_slots)
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-12)


def test_cost_of_one_row_by_hand() -> None:
    """One row, rank 2, 3 inputs, 5 outputs in fp16, counted on paper."""
    shrink = shrink_cost({0: 1}, {0: [2]}, in_features=3)
    assert shrink == Cost(flops=2 * 3 * 2, bytes=2 * 3 + 2 * 3 * 2 + 4 * 2)
    expand = expand_cost({0: 1}, {0: [2]}, widths=[5])
    assert expand == Cost(flops=2 * 2 * 5, bytes=4 * 2 + 2 * 2 * 5 + 2 * 2 * 5)
    assert sgmv_cost({0: 1}, {0: [2]}, in_features=3, widths=[5]) == shrink + expand


def test_cost_of_gains_by_hand() -> None:
    """DoRA on one of two adapters: one product an output and row, a gain an output and adapter."""
    segments, ranks = {0: 3, 1: 2}, {0: [2, 4], 1: [2, 4]}
    plain = expand_cost(segments, ranks, widths=[5, 7])
    scaled = expand_cost(segments, ranks, widths=[5, 7], dora={1})
    assert scaled == plain + Cost(flops=2 * 12, bytes=4 * 12)
    biased = expand_cost(segments, ranks, widths=[5, 7], dora={1}, bias=True)
    assert biased == scaled + Cost(flops=2 * 2 * 12, bytes=2 * 12)
    one_linear = {0: [2, 4], 1: [2, 0]}
    gained = sgmv_cost(segments, one_linear, in_features=3, widths=[5, 7], dora={1})
    without = sgmv_cost(segments, one_linear, in_features=3, widths=[5, 7])
    assert gained == without + Cost(flops=2 * 5, bytes=4 * 5)


def test_absent_work_costs_nothing() -> None:
    """Slices of rank 0 and slots without rows add neither flops nor bytes."""
    ranks = {0: [2, 0], 1: [0, 0], 2: [4, 4]}
    lean = sgmv_cost({0: 3}, {0: [2]}, in_features=8, widths=[6])
    assert sgmv_cost({0: 3, 1: 5, 2: 0}, ranks, in_features=8, widths=[6, 9]) == lean
    assert Cost(0, 0).intensity == 0.0


@pytest.mark.parametrize(
    ("segments", "ratio"), [(dict.fromkeys(range(64), 1), 2.83), ({0: 64}, 28.16)]
)
def test_gather_bmm_moves_the_weights_three_times(segments: dict[int, int], ratio: float) -> None:
    """The README's table: 64 rows, rank 16, 4096 features; all adapters differ, or all are one."""
    ranks = {slot: [16] for slot in segments}
    gathered = gather_bmm_cost(segments, ranks, in_features=4096, widths=[4096])
    ours = sgmv_cost(segments, ranks, in_features=4096, widths=[4096])
    assert gathered.bytes / ours.bytes == pytest.approx(ratio, abs=0.01)
    assert gathered.flops == ours.flops


def test_splits_cost_planes() -> None:
    """Each further split of K writes and reads one more fp32 plane."""
    one, three = (
        sgmv_cost({0: 4}, {0: [8]}, in_features=64, widths=[32], splits=splits) for splits in (1, 3)
    )
    assert three.bytes - one.bytes == 2 * 2 * 4 * 4 * 8
    assert three.flops == one.flops
