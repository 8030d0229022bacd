"""What is chosen before a launch: tiles by what is known of the batch, gains where any are."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from aril.kernels.sgmv import GroupShape, LoraPair, SgmvMode, StackedWeights, make_plan, stacked
from aril.kernels.sgmv import tiles as plan_table
from aril.kernels.sgmv.tiles import (
    MAX_SPLIT_K_ROWS,
    TALL_SEGMENT,
    choose_tiles,
    matrix_vector_tiles,
)
from tests.support.sgmv_cases import make_case

MANY = 4 * MAX_SPLIT_K_ROWS


def height_and_splits(adapters: int | None, mode: SgmvMode = SgmvMode.FAST) -> tuple[int, int]:
    """Height of a block and splits of K, for many rows of so many adapters."""
    chosen = choose_tiles(mode, rows=MANY, in_features=4096, max_rank=16, adapters=adapters)
    return chosen.block_m, chosen.splits


def test_tall_blocks_are_for_long_segments() -> None:
    """Many rows fill the device, so K is whole; blocks are tall where adapters fill them."""
    assert height_and_splits(MANY // TALL_SEGMENT) == (64, 1)
    assert height_and_splits(MANY // TALL_SEGMENT + 1) == (16, 1)
    assert height_and_splits(MANY) == (16, 1)
    assert height_and_splits(None) == (64, 1), "unknown segments: by rows alone"


def test_invariant_tiles_ignore_the_adapters() -> None:
    """A row's bits may not depend on how many adapters are beside it."""
    assert (
        len({height_and_splits(adapters, SgmvMode.INVARIANT) for adapters in (None, 1, 16, MANY)})
        == 1
    )


def test_a_plan_knows_its_adapters_where_they_cannot_change() -> None:
    """Rows without one don't count; a static plan will be given others."""
    row_slots = torch.tensor([3, -1, 0, 3, -1], dtype=torch.int32)
    assert make_plan(row_slots, slots=4).adapters == 2
    assert make_plan(torch.tensor([-1], dtype=torch.int32), slots=4).adapters == 0
    assert make_plan(row_slots, slots=4, static=True).adapters is None


def test_gains_are_passed_while_an_adapter_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any the kernels are those of plain LoRA; a static plan may meet one later."""
    passed: list[bool] = []

    def note(*_operands: Any, gains: Any, **_options: Any) -> None:
        passed.append(gains is not None)

    monkeypatch.setattr(stacked, "sgmv_", note)
    shape = GroupShape(8, (4,), max_rank=2)
    weights = StackedWeights(shape, 2, device=torch.device("cpu"), dtype=torch.float32)
    a, b = torch.ones(2, 8), torch.ones(4, 2)
    plain, dora = LoraPair(a, b, 1.0), LoraPair(a, b, 1.0, gain=torch.ones(4))
    ids = torch.zeros(1, dtype=torch.int32)

    def add(*, static: bool = False) -> None:
        plan = make_plan(ids, slots=2, static=static)
        weights.add_(torch.zeros(1, 4), torch.zeros(1, 8), plan)

    weights.load(0, [plain])
    add()
    add(static=True)
    weights.load(1, [dora])
    add()
    weights.load(1, [plain])
    add()
    weights.load(1, [dora])
    weights.clear(1)
    add()
    assert passed == [False, True, True, False, False]


@pytest.mark.parametrize("rows", [1, 64, 65, 8192])
def test_invariant_tiles_ignore_the_batch(rows: int) -> None:
    """The plan table of invariant mode depends on the weights' shape alone."""
    tiles = choose_tiles(SgmvMode.INVARIANT, rows=rows, in_features=4096, max_rank=64)
    assert tiles == choose_tiles(SgmvMode.INVARIANT, rows=7, in_features=4096, max_rank=64)


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 64])
@pytest.mark.parametrize("max_rank", [1, 16, 64, 256])
def test_vector_tiles_fit_their_registers(rows: int, max_rank: int) -> None:
    """A block holds a few rows, never fewer than it can; sums are at most 64 a thread."""
    tiles = matrix_vector_tiles(rows, in_features=4096, max_rank=max_rank)
    assert tiles.block_m == min(4, 1 << (rows - 1).bit_length())
    threads = tiles.warps * 32
    assert tiles.block_m * tiles.shrink_n * tiles.shrink_k <= 64 * threads
    assert tiles.block_m * tiles.expand_n * tiles.expand_r <= 64 * threads
    case = make_case([0] * rows, [[3]], in_features=33, widths=[20])
    small = matrix_vector_tiles(rows, in_features=33, max_rank=3)
    case.check(case.run("triton", tiles=small))


def test_the_form_is_chosen_by_rows_in_fast_mode_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Never by default; once the table says so, by shapes that a graph's capture knows."""

    def height(mode: SgmvMode, rows: int) -> int:
        return choose_tiles(mode, rows=rows, in_features=4096, max_rank=16).block_m

    assert [height(SgmvMode.FAST, rows) for rows in (0, 1, 8, 9)] == [16] * 4
    monkeypatch.setattr(plan_table, "MATRIX_VECTOR_ROWS", 8)
    assert [height(SgmvMode.FAST, rows) for rows in (0, 1, 8, 9)] == [16, 1, 4, 16]
    assert height(SgmvMode.INVARIANT, 1) == 16
