"""`sgmv_` with DoRA's gains: scaled rows against fp64, all other rows untouched to the bit."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aril.kernels.sgmv import Gains
from tests.support.device import sized
from tests.support.launches import LaunchCounter
from tests.support.sgmv_cases import (
    SMALL_TILES,
    TRITON_WAYS,
    VECTOR_TILES,
    WAYS,
    make_case,
)

if TYPE_CHECKING:
    from tests.support.sgmv_cases import SgmvCase

EVERY_WAY = pytest.mark.parametrize("way", WAYS)
MODES = pytest.mark.parametrize("mode", ["fast", "invariant"])
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
BIAS = pytest.mark.parametrize("bias", [False, True], ids=["plain", "bias"])

# Slot 0: DoRA on two slices, one absent. 1: plain LoRA. 2: DoRA on one of three. 3: on all.
ROWS = [0, 0, -1, 3, 3, 1, 1, 0, -1, 2, 4]
RANKS = [[4, 4, 0], [0, 7, 1], [17, 2, 3], [5, 1, 17], [0, 0, 0]]
DORA = [[1, 1, 0], [0, 0, 0], [0, 1, 0], [1, 1, 1], [0, 0, 0]]
WIDTHS = sized([19, 8, 3], [1027, 264, 67])


def mixed(dtype: torch.dtype = torch.float32, *, bias: bool = True) -> SgmvCase:
    """DoRA, LoRA and neither in one batch, rows out of order, widths that fill no tile."""
    return make_case(
        ROWS * sized(1, 19),
        RANKS,
        in_features=sized(41, 4101),
        widths=WIDTHS,
        dtype=dtype,
        dora=DORA,
        bias=bias,
    )


def columns_of_gains(case: SgmvCase) -> torch.Tensor:
    """Which elements of y are to be scaled."""
    assert case.gains is not None
    scaled = case.gains.present.bool() & (case.ranks > 0)
    wide = scaled.repeat_interleave(torch.tensor([part.shape[1] for part in case.b]), 1)
    return wide[case.row_slots.clamp(min=0).long()] & (case.row_slots >= 0)[:, None]


@BIAS
@MODES
@EVERY_WAY
@DTYPES
def test_mixed_batch_matches_fp64(way: str, mode: str, dtype: torch.dtype, bias: bool) -> None:
    """DoRA beside LoRA beside none, with and without a bias, in every type and mode."""
    case = mixed(dtype, bias=bias)
    case.check(case.run(way, mode))


@BIAS
@MODES
@EVERY_WAY
@DTYPES
def test_powers_of_two_are_exact(way: str, mode: str, dtype: torch.dtype, bias: bool) -> None:
    """Small integers times powers of two leave nothing to rounding."""

    def case_of(kind: torch.dtype) -> SgmvCase:
        return make_case(
            [0, 1, -1, 0, 1, 2],
            [[3, 2], [1, 0], [2, 2]],
            in_features=4,
            widths=[9, 4],
            dtype=kind,
            integers=True,
            dora=[[1, 1], [0, 0], [0, 1]],
            bias=bias,
        )

    expected = case_of(torch.float64).run("torch")
    assert expected.abs().max() < 128, "beyond 128 a half is no longer exact in bf16"
    assert torch.equal(case_of(dtype).run(way, mode).double(), expected)


@pytest.mark.parametrize("block_m", [1, 2, 4, 8])
def test_vectors_of_any_height(block_m: int) -> None:
    """Gains of segments fuller and emptier than a block, ranks in whole pieces of 16 bytes."""
    case = make_case(ROWS, RANKS, in_features=41, widths=WIDTHS, max_rank=24, dora=DORA, bias=True)
    case.check(case.run("triton", tiles=VECTOR_TILES._replace(block_m=block_m)))


@MODES
@EVERY_WAY
@DTYPES
def test_other_rows_keep_the_bits_of_a_call_without_gains(
    way: str, mode: str, dtype: torch.dtype
) -> None:
    """LoRA rows, backbone rows and slices without gains: the same bits, also of -0.0 and NaN."""
    case = mixed(dtype)
    scaled = columns_of_gains(case)
    odd = torch.tensor([-0.0, float("nan"), float("inf"), 1e-7]).to(dtype)
    backbone = case.row_slots == -1
    case.y[backbone] = odd.repeat(99)[: case.y[backbone].numel()].view_as(case.y[backbone])
    result = case.run(way, mode)
    without = replace(case, gains=None).run(way, mode)
    bits = torch.int32 if dtype is torch.float32 else torch.int16
    assert torch.equal(result.view(bits)[~scaled], without.view(bits)[~scaled])
    assert not torch.equal(result[scaled], without[scaled])


@EVERY_WAY
def test_a_slice_without_rank_has_no_gain(way: str) -> None:
    """A gain that is marked present is not applied, nor read, where the adapter has no rank."""
    case = mixed()
    assert case.gains is not None
    every = Gains(case.gains.values, torch.ones_like(case.gains.present), case.gains.bias)
    plain = make_case([0, -1], [[0, 0, 0]] * 5, in_features=41, widths=WIDTHS)
    assert torch.equal(replace(plain, gains=every).run(way), plain.y)


@EVERY_WAY
def test_gains_of_more_slices_than_a_launch_takes(way: str) -> None:
    """Six linears, gains on some: the second launch finds its own columns of gains and bias."""
    case = make_case(
        [1, 0, -1, 1],
        [[2] * 6, [3] * 6],
        in_features=8,
        widths=[5, 17, 3, 4, 9, 2],
        dora=[[0] * 6, [0, 1, 0, 1, 1, 1]],
        bias=True,
    )
    with LaunchCounter() as counter:
        case.check(case.run(way))
    if way in TRITON_WAYS:
        assert counter.ours == {"sgmv_shrink": 1, "sgmv_expand": 2}


@EVERY_WAY
def test_y_wider_than_the_operands(way: str) -> None:
    """A y in fp32 beside fp16 operands is scaled unrounded."""
    case = mixed(torch.float16)
    wide = replace(case, y=case.y.float())
    wide.check(wide.run(way))


@EVERY_WAY
@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    row_slots=st.lists(st.integers(-1, 3), max_size=40),
    ranks=st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=4, max_size=4),
    dora=st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=4, max_size=4),
    bias=st.booleans(),
    seed=st.integers(0, 99),
)
def test_random_mixtures(
    way: str,
    row_slots: list[int],
    ranks: list[tuple[int, int]],
    dora: list[tuple[int, int]],
    bias: bool,
    seed: int,
) -> None:
    """Any rows of any adapters, with gains anywhere."""
    case = make_case(
        row_slots, ranks, in_features=24, widths=[17, 5], seed=seed, dora=dora, bias=bias
    )
    case.check(case.run(way))


def test_many_rows_take_the_large_path() -> None:
    """A prefill and scattered decode rows, past the size where numpy hands over to torch."""
    for row_slots in ([0] * 300 + [1, -1], [0, -1] + [0, 1] * 150):
        case = make_case(
            row_slots,
            [[32, 32], [8, 8]],
            in_features=64,
            widths=[96, 32],
            dora=[[1, 1], [1, 0]],
            bias=True,
        )
        case.check(case.run("torch"))


@EVERY_WAY
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.usefixtures("rows_keep_their_bits")
def test_a_row_has_the_same_bits_in_any_batch(way: str, dtype: torch.dtype) -> None:
    """Invariant mode holds for scaled rows too: alone, in any mix, at any position."""
    row_slots = [2, 0, 2, 1, 2, -1, 0, 2, 2, 2, 1, 2, 2, 2, 2, 0, 2, 2, 2, 2, 2, 2]
    case = make_case(
        row_slots,
        [[8, 3], [16, 16], [5, 4]],
        in_features=48,
        widths=[40, 6],
        dtype=dtype,
        dora=[[0, 0], [1, 1], [1, 0]],
        bias=True,
    )
    case.keeps_its_bits(way, SMALL_TILES if way == "triton" else None, rows=(0, 1, 3, 21))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"values": torch.zeros(5, 29)}, r"values \[5, 29\]"),
        ({"values": torch.zeros(5, 30, dtype=torch.float16)}, "float16"),
        ({"values": torch.zeros(30, 5).T}, "contiguous"),
        ({"present": torch.zeros(5, 2, dtype=torch.int32)}, r"present \[5, 2\]"),
        ({"present": torch.zeros(5, 3, dtype=torch.bool)}, "bool"),
        ({"bias": torch.zeros(29)}, r"bias \[29\]"),
        ({"bias": torch.zeros(60)[::2]}, "contiguous"),
    ],
)
def test_gains_that_do_not_fit_are_refused(change: dict[str, torch.Tensor], message: str) -> None:
    """Wrong shapes and types raise before any launch, and the message shows what was given."""
    case = mixed()
    assert case.gains is not None
    with pytest.raises(ValueError, match=message):
        replace(case, gains=case.gains._replace(**change)).run("torch")
