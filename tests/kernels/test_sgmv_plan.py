"""The plan: every row with an adapter stands in exactly one block of its own slot."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aril.kernels.sgmv import PlanLayout, SgmvMode, block_height, make_plan, plan_on
from aril.kernels.sgmv.row_blocks import build_blocks, worst_case_blocks
from aril.kernels.sgmv.tiles import choose_tiles

SLOTS = 6
ROW_SLOTS = st.lists(st.integers(-1, SLOTS - 1), max_size=60)
BLOCK_M = st.sampled_from([1, 4, 16])


def int32(values: list[int]) -> torch.Tensor:
    """Make slot ids as the plan takes them."""
    return torch.tensor(values, dtype=torch.int32)


@given(row_slots=ROW_SLOTS, block_m=BLOCK_M, static=st.booleans())
def test_blocks_hold_each_row_once(row_slots: list[int], block_m: int, static: bool) -> None:
    """Blocks partition the rows with adapter, each in a block of its slot, in ascending order."""
    plan = make_plan(int32(row_slots), slots=SLOTS, static=static)
    table = plan.blocks(block_m)
    seen = []
    for slot, rows in zip(table.slots.tolist(), table.rows.view(-1, block_m).tolist(), strict=True):
        live = [row for row in rows if row < len(row_slots)]
        assert all(row == len(row_slots) for row in rows[len(live) :]), "padding comes last"
        assert live == sorted(live)
        assert (slot == -1) == (not live), "a block without rows has no slot"
        assert all(row_slots[row] == slot for row in live)
        seen += live
    assert sorted(seen) == [row for row, slot in enumerate(row_slots) if slot != -1]


@given(row_slots=ROW_SLOTS, block_m=BLOCK_M)
def test_room_is_exact_on_the_host_and_enough_when_static(
    row_slots: list[int], block_m: int
) -> None:
    """A host plan launches no idle block; the worst case is never exceeded."""
    exact = make_plan(int32(row_slots), slots=SLOTS).blocks(block_m)
    counts = [row_slots.count(slot) for slot in range(SLOTS)]
    assert len(exact.slots) == sum(-(-count // block_m) for count in counts)
    assert len(exact.slots) <= worst_case_blocks(len(row_slots), SLOTS, block_m)


@given(rows=st.integers(0, 50), slots=st.integers(1, 20), block_m=st.integers(1, 20))
def test_worst_case_is_reached(rows: int, slots: int, block_m: int) -> None:
    """Some segmentation needs the whole room: the bound is tight, so static grids waste nothing."""
    used = min(rows, slots)
    sizes = [1] * used
    if used:
        sizes[0] += rows - used
    assert sum(-(-size // block_m) for size in sizes) <= worst_case_blocks(rows, slots, block_m)
    spread = [1 + (rows - used) // block_m * block_m] + [1] * (used - 1) if used else []
    assert sum(-(-size // block_m) for size in spread) == worst_case_blocks(rows, slots, block_m)


@settings(max_examples=30)
@given(first=st.lists(st.integers(-1, 5), min_size=9, max_size=9), seed=st.integers(0, 99))
def test_update_keeps_addresses(first: list[int], seed: int) -> None:
    """A static plan takes other segments in place, as if it had been made for them."""
    second = torch.randint(-1, 6, (9,), generator=torch.Generator().manual_seed(seed)).tolist()
    plan = make_plan(int32(first), slots=SLOTS, static=True)
    before = plan.blocks(4)
    plan.update_(int32(second))
    after = plan.blocks(4)
    fresh = make_plan(int32(second), slots=SLOTS, static=True)
    assert after.rows.data_ptr() == before.rows.data_ptr()
    assert torch.equal(after.rows, fresh.blocks(4).rows)
    assert torch.equal(after.slots, fresh.blocks(4).slots)
    assert [(s.slot, s.size) for s in plan.segments] == [(s.slot, s.size) for s in fresh.segments]


def test_segments_are_slices_where_rows_are_adjacent() -> None:
    """Adjacent rows are a slice (no copy), scattered rows an index, -1 belongs to nobody."""
    plan = make_plan(int32([2, 2, -1, 0, 1, 0]), slots=3)
    two, zero, one = plan.segments
    assert (two.slot, two.size, two.rows) == (2, 2, slice(0, 2))
    assert isinstance(zero.rows, torch.Tensor)
    assert zero.rows.tolist() == [3, 5]
    assert one.rows == slice(4, 5)


def test_the_plan_keeps_its_own_copy() -> None:
    """A caller that reuses its id buffer for the next step does not change this step's plan."""
    ids = int32([0, 1, -1])
    plan = make_plan(ids, slots=2)
    ids.fill_(-1)
    assert [segment.slot for segment in plan.segments] == [0, 1]
    assert plan.blocks(1).slots.tolist() == [0, 1]


@pytest.mark.parametrize("bad", [-2, 3, 2**31 - 1])
def test_ids_out_of_range_are_refused(bad: int) -> None:
    """An id that is no slot never reaches a kernel."""
    with pytest.raises(ValueError, match=f"{bad}.*allowed are -1 to 2"):
        make_plan(int32([0, bad, 1]), slots=3)


def test_unchecked_ids_out_of_range_count_as_no_adapter() -> None:
    """The builder that runs on a device cannot raise: it leaves such rows out."""
    table = build_blocks(int32([0, 7, -5, 1]), slots=2, block_m=1, blocks=4)
    assert table.slots.tolist() == [0, 1, -1, -1]
    assert table.rows.tolist() == [0, 3, 4, 4]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (torch.zeros(3), r"int32 \[T\], got torch.float32 \(3,\)"),
        (torch.zeros(2, 2, dtype=torch.int32), r"\(2, 2\)"),
    ],
)
def test_wrong_ids_are_refused(ids: torch.Tensor, message: str) -> None:
    """The message names the type and shape that were given."""
    with pytest.raises(ValueError, match=message):
        make_plan(ids, slots=3)


def test_only_a_static_plan_is_updated() -> None:
    """A plan whose grid fits one step cannot be stretched to another."""
    plan = make_plan(int32([0, 0]), slots=2)
    with pytest.raises(ValueError, match="static=True"):
        plan.update_(int32([0, 1]))
    with pytest.raises(ValueError, match="2 rows"):
        make_plan(int32([0, 0]), slots=2, static=True).update_(int32([0]))


@settings(max_examples=60)
@given(
    row_slots=st.lists(st.integers(-1, SLOTS - 1), min_size=1, max_size=40),
    block_m=st.sampled_from([1, 2, 4, 16]),
    static=st.booleans(),
)
def test_blocks_are_the_same_from_the_host(
    row_slots: list[int], block_m: int, *, static: bool
) -> None:
    """What is laid out there, and comes with other numbers, is what a device would build."""
    ids = np.array(row_slots, np.int32)
    layout = PlanLayout(ids, None, slots=SLOTS, block_m=block_m, static=static)
    there = iter([torch.from_numpy(each) for each in layout.arrays])
    plan = plan_on(layout, there, device=torch.device("cpu"))
    built = make_plan(torch.from_numpy(ids), slots=SLOTS, static=static)
    assert torch.equal(plan.blocks(block_m).rows, built.blocks(block_m).rows)
    assert torch.equal(plan.blocks(block_m).slots, built.blocks(block_m).slots)
    assert plan.adapters == built.adapters
    assert [(s.slot, s.size) for s in plan.segments] == [(s.slot, s.size) for s in built.segments]


@settings(max_examples=30)
@given(steps=st.lists(st.lists(st.integers(-1, 5), min_size=9, max_size=9), min_size=2, max_size=2))
def test_a_plan_follows_what_is_copied_to_its_tensors(steps: list[list[int]]) -> None:
    """Tables of other heights too, which nobody has copied."""
    first, second = (
        PlanLayout(np.array(each, np.int32), None, slots=SLOTS, block_m=4, static=True)
        for each in steps
    )
    places = [torch.from_numpy(each.copy()) for each in first.arrays]
    plan = plan_on(first, iter(places), device=torch.device("cpu"))
    plan.blocks(2)
    for place, each in zip(places, second.arrays, strict=True):
        place.copy_(torch.from_numpy(each))
    plan.follow(second)
    fresh = make_plan(int32(steps[1]), slots=SLOTS, static=True)
    for block_m in (2, 4):
        assert torch.equal(plan.blocks(block_m).rows, fresh.blocks(block_m).rows)
        assert torch.equal(plan.blocks(block_m).slots, fresh.blocks(block_m).slots)
    assert [(s.slot, s.size) for s in plan.segments] == [(s.slot, s.size) for s in fresh.segments]


def test_the_height_that_is_laid_out_is_the_one_that_is_asked_for() -> None:
    """Of every shape of weights: what comes with a step is not built again."""
    for mode in SgmvMode:
        for rows, adapters in product((1, 3, 16, 130, 600), (None, 1, 4)):
            for features, rank in ((64, 8), (4096, 64)):
                tiles = choose_tiles(
                    mode, rows=rows, in_features=features, max_rank=rank, adapters=adapters
                )
                assert tiles.block_m == block_height(mode, rows=rows, adapters=adapters)
