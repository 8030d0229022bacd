"""`sgmv_` with a scale for each row: scaled rows against fp64, all others untouched to the bit."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch

from aril.kernels.sgmv import make_plan
from tests.support.device import sized
from tests.support.sgmv_cases import SMALL_TILES, WAYS, make_case

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.support.sgmv_cases import SgmvCase

EVERY_WAY = pytest.mark.parametrize("way", WAYS)
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])

ROWS = [0, 0, -1, 3, 3, 1, 1, 0, -1, 2, 4]
SCALES = [1.0, 0.0, 3.0, 0.75, 1.0, 1.0, 1.0, 4.0, 1.0, 0.1, 2.0]
RANKS = [[4, 4, 0], [0, 7, 1], [17, 2, 3], [5, 1, 17], [0, 0, 0]]
DORA = [[1, 1, 0], [0, 0, 0], [0, 1, 0], [0, 0, 0], [0, 0, 0]]
WIDTHS = sized([19, 8, 3], [1027, 264, 67])


def mixed(dtype: torch.dtype = torch.float32) -> SgmvCase:
    """DoRA, LoRA and neither in one batch, some rows scaled, rows of one slot by other scales."""
    times = sized(1, 19)
    case = make_case(
        ROWS * times,
        RANKS,
        in_features=sized(41, 4101),
        widths=WIDTHS,
        dtype=dtype,
        dora=DORA,
        bias=True,
    )
    return replace(case, row_scales=torch.tensor(SCALES * times))


@EVERY_WAY
@DTYPES
def test_mixed_batch_matches_fp64(way: str, dtype: torch.dtype) -> None:
    """Other scales within one segment, 0 and 4 among them."""
    case = mixed(dtype)
    case.check(case.run(way))


@EVERY_WAY
@DTYPES
def test_a_scale_of_1_changes_no_bit(way: str, dtype: torch.dtype) -> None:
    """Beside scaled rows, or where all are 1: the bits of a call that knows of no scales."""
    case = mixed(dtype)
    assert case.row_scales is not None
    plain = replace(case, row_scales=None).run(way)
    ones = replace(case, row_scales=torch.ones_like(case.row_scales)).run(way)
    assert torch.equal(ones, plain)
    own = (case.row_scales == 1) | (case.row_slots < 0)
    scaled = case.run(way)
    assert torch.equal(scaled[own], plain[own])
    assert not torch.equal(scaled[~own], plain[~own])


@EVERY_WAY
@DTYPES
def test_powers_of_two_are_exact(way: str, dtype: torch.dtype) -> None:
    """Small integers times powers of two leave nothing to rounding."""

    def case_of(kind: torch.dtype) -> SgmvCase:
        case = make_case(
            [0, 1, -1, 0, 1, 2],
            [[3, 2], [1, 0], [2, 2]],
            in_features=4,
            widths=[9, 4],
            dtype=kind,
            integers=True,
        )
        return replace(case, row_scales=torch.tensor([0.5, 2.0, 4.0, 1.0, 0.0, -1.0]))

    expected = case_of(torch.float64).run("torch")
    assert torch.equal(case_of(dtype).run(way).double(), expected)


@EVERY_WAY
def test_many_rows_take_the_large_path(way: str) -> None:
    """A prefill whose rows have a scale, past the size where numpy hands over to torch."""
    rows = 300 if way == "torch" else 20
    case = make_case([0] * rows + [1, -1, 0], [[32], [8]], in_features=64, widths=[96])
    scaled = replace(case, row_scales=torch.linspace(0, 4, len(case.x)))
    scaled.check(scaled.run(way))


@EVERY_WAY
@pytest.mark.usefixtures("rows_keep_their_bits")
def test_a_row_has_the_same_bits_in_any_batch(way: str) -> None:
    """Invariant mode holds for scaled rows too: alone, in any mix, at any position."""
    row_slots = [1, 0, 1, 0, 1, -1, 0, 1, 1, 1, 1, 1]
    case = make_case(row_slots, [[8, 3], [16, 16]], in_features=48, widths=[40, 6])
    case = replace(case, row_scales=torch.tensor([1.0, 0.3, 2.7, 1.0] * 3))
    case.check(case.run(way, "invariant"))
    plain = replace(case, row_scales=None).run(way, "invariant")
    assert case.row_scales is not None
    own = case.row_scales == 1
    assert torch.equal(case.run(way, "invariant")[own], plain[own])
    case.keeps_its_bits(way, SMALL_TILES if way == "triton" else None, rows=(0, 2))


def test_a_static_plan_takes_other_scales() -> None:
    """A step without any has 1 everywhere again: nothing of the last one stays."""
    ids = torch.tensor([0, 1, 0], dtype=torch.int32)
    plan = make_plan(ids, slots=2, static=True)

    def scales() -> Sequence[float]:
        assert plan.row_scales is not None
        return plan.row_scales.tolist()

    place = plan.row_scales
    plan.update_(ids, torch.tensor([0.5, 1.0, 2.0]))
    assert scales() == [0.5, 1.0, 2.0]
    assert plan.segments[0].scales is not None
    plan.update_(ids)
    assert scales() == [1.0, 1.0, 1.0]
    assert plan.segments[0].scales is None
    assert plan.row_scales is place


@pytest.mark.parametrize(
    "scales", [torch.ones(2), torch.ones(3, dtype=torch.float64), torch.ones(3, 1)], ids=str
)
def test_scales_that_do_not_fit_are_refused(scales: torch.Tensor) -> None:
    """By shape and type, before anything is multiplied."""
    with pytest.raises(ValueError, match="row_scales must be float32"):
        make_plan(torch.zeros(3, dtype=torch.int32), slots=1, row_scales=scales)
