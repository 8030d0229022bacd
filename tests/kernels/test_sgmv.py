"""`sgmv_` against fp64 on both backends; without a GPU Triton runs in its interpreter."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aril.kernels.sgmv import make_plan, sgmv_
from tests.support.device import device_of, sized
from tests.support.launches import LaunchCounter
from tests.support.sgmv_cases import (
    SMALL_TILES,
    TRITON_WAYS,
    VECTOR_TILES,
    WAYS,
    backend_of,
    make_case,
)

if TYPE_CHECKING:
    from aril.kernels.sgmv.tiles import Tiles
    from tests.support.sgmv_cases import SgmvCase

MODES = ["fast", "invariant"]

MIXED_ROWS = [0, 0, -1, 3, 3, 1, 1, 0, -1, 2, 4]
MIXED_RANKS = [[4, 4, 0], [0, 7, 1], [17, 2, 3], [5, 0, 17], [0, 0, 0]]


def mixed(dtype: torch.dtype = torch.float32) -> SgmvCase:
    """Five slots of mixed ranks over a fused group of three odd widths, rows out of order."""
    return make_case(
        MIXED_ROWS * sized(1, 19),
        MIXED_RANKS,
        in_features=sized(41, 4101),
        widths=sized([19, 8, 3], [1027, 264, 67]),
        dtype=dtype,
    )


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_mixed_ranks_match_fp64(way: str, mode: str, dtype: torch.dtype) -> None:
    """Mixed ranks, absent slices, odd sizes and scattered rows are right in every type."""
    case = mixed(dtype)
    case.check(case.run(way, mode))


@pytest.mark.parametrize("tiles", [SMALL_TILES, VECTOR_TILES], ids=["tensor cores", "vectors"])
@pytest.mark.parametrize("splits", [1, 2, 3, 5])
def test_splits_are_summed(splits: int, tiles: Tiles) -> None:
    """Any split of K is right, also where the last splits have nothing to do."""
    case = mixed()
    case.check(case.run("triton", tiles=tiles._replace(splits=splits)))


@pytest.mark.parametrize("max_rank", [17, 24])
@pytest.mark.parametrize("block_m", [1, 2, 4, 8])
def test_vectors_of_any_height(block_m: int, max_rank: int) -> None:
    """Segments fuller and emptier than a block; a highest rank that is whole pieces, and not."""
    case = make_case(MIXED_ROWS, MIXED_RANKS, in_features=41, widths=[19, 8, 3], max_rank=max_rank)
    case.check(case.run("triton", tiles=VECTOR_TILES._replace(block_m=block_m)))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_integers_are_exact(way: str, mode: str, dtype: torch.dtype) -> None:
    """Small integers leave nothing to rounding: any lost or doubled term shows as a difference."""
    case = make_case(
        [0, 1, -1, 0, 1],
        [[3, 2], [1, 0]],
        in_features=5,
        widths=[9, 4],
        max_rank=4,
        dtype=dtype,
        integers=True,
    )
    expected = make_case(
        [0, 1, -1, 0, 1],
        [[3, 2], [1, 0]],
        in_features=5,
        widths=[9, 4],
        max_rank=4,
        dtype=torch.float64,
        integers=True,
    ).run("torch")
    assert expected.abs().max() < 256, "beyond 256 a bf16 is no longer exact"
    assert torch.equal(case.run(way, mode).double(), expected)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("way", WAYS)
def test_untouched_outputs_keep_their_bits(way: str, mode: str) -> None:
    """Rows without adapter and slices of rank 0 keep every bit, also of -0.0, inf and NaN."""
    case = mixed()
    odd_bits = torch.tensor([-0.0, float("nan"), float("inf"), 1e-42])
    untouched = torch.zeros_like(case.y, dtype=torch.bool)
    for row, slot in enumerate(case.row_slots.tolist()):
        first = 0
        for part, weights in enumerate(case.b):
            columns = slice(first, first + weights.shape[1])
            untouched[row, columns] = slot == -1 or MIXED_RANKS[slot][part] == 0
            first = columns.stop
    case.y[untouched] = odd_bits.repeat(int(untouched.sum()))[: int(untouched.sum())]
    result = case.run(way, mode)
    assert torch.equal(result.view(torch.int32)[untouched], case.y.view(torch.int32)[untouched])
    assert not torch.equal(result[~untouched], case.y[~untouched])


@pytest.mark.parametrize("way", WAYS)
def test_the_toy_of_the_paper_review(way: str) -> None:
    """64 requests, each with its own adapter: batched equals the per-request loop."""
    generator = torch.Generator().manual_seed(42)
    rows, width_in, width_out, rank = 64, 64, 32, 8
    x, w, a, b = (
        torch.randn(shape, generator=generator, dtype=torch.float64)
        for shape in (
            (rows, width_in),
            (width_in, width_out),
            (rows, rank, width_in),
            (rows, width_out, rank),
        )
    )
    naive = torch.stack([x[i] @ w + (x[i] @ a[i].T) @ b[i].T for i in range(rows)])
    dtype = torch.float64 if way == "torch" else torch.float32
    backend, tiles = backend_of(way)
    device = device_of(backend)
    y = (x @ w).to(device, dtype)
    sgmv_(
        y,
        x.to(device, dtype),
        a.to(device, dtype),
        [b.to(device, dtype)],
        torch.full((rows, 1), rank, dtype=torch.int32, device=device),
        torch.ones(rows, 1, device=device),
        make_plan(torch.arange(rows, dtype=torch.int32), slots=rows, device=device),
        backend=backend,
        tiles=tiles,
    )
    tolerance = 1e-8 if way == "torch" else 2e-4
    torch.testing.assert_close(y.cpu().double(), naive, rtol=0, atol=tolerance)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("row_slots", [[], [-1, -1, -1], [0], [1]])
def test_empty_and_lone_batches(way: str, row_slots: list[int]) -> None:
    """No rows, no adapters, one row, and one row of an empty slot."""
    case = make_case(row_slots, [[3], [0]], in_features=7, widths=[5])
    case.check(case.run(way))


@pytest.mark.parametrize("way", TRITON_WAYS)
def test_no_adapter_no_launch(way: str) -> None:
    """A batch of backbone rows launches nothing at all."""
    case = make_case([-1, -1], [[3]], in_features=7, widths=[5])
    with LaunchCounter() as counter:
        case.run(way)
    assert counter.ours == {}


@pytest.mark.parametrize(("slices", "expands"), [(1, 1), (3, 1), (4, 1), (6, 2)])
def test_launches_per_group(slices: int, expands: int) -> None:
    """However many adapters: one shrink for a fused group, one expand per four slices."""
    case = make_case(
        [0, 1, 2, -1], [[2] * slices] * 3, in_features=8, widths=[5 + j for j in range(slices)]
    )
    with LaunchCounter() as counter:
        result = case.run("triton")
    case.check(result)
    assert counter.ours == {"sgmv_shrink": 1, "sgmv_expand": expands}


@pytest.mark.parametrize("way", WAYS)
def test_strided_x_and_y(way: str) -> None:
    """Views work: x and y need not be contiguous in either direction."""
    case = mixed()
    backend, tiles = backend_of(way)
    there = case.to(device_of(backend))
    rows, width = case.y.shape
    room = torch.full((width + 3, rows * 2), 7.0, device=there.y.device)
    y = room[1 : width + 1, ::2].T
    y.copy_(there.y)
    x = there.x.new_full((rows, case.x.shape[1] * 3), float("nan"))[:, ::3]
    x.copy_(there.x)
    plan = make_plan(case.row_slots, slots=len(case.ranks), device=y.device)
    sgmv_(y, x, there.a, there.b, there.ranks, there.scales, plan, backend=backend, tiles=tiles)
    case.check(y)
    y.fill_(7.0)
    assert bool((room == 7.0).all()), "memory beside y was written"


@pytest.mark.parametrize("way", WAYS)
def test_y_of_another_type(way: str) -> None:
    """Y may be wider than the operands: it then keeps the sum unrounded."""
    case = mixed(torch.float16)
    wide = replace(case, y=case.y.float())
    wide.check(wide.run(way))


@pytest.mark.parametrize("way", WAYS)
def test_ranks_from_1_to_256(way: str) -> None:
    """The smallest and the largest rank share a batch."""
    case = make_case(
        [0, 1, 1, -1], [[1], [256]], in_features=sized(33, 4097), widths=[sized(20, 1000)]
    )
    case.check(case.run(way))


@pytest.mark.parametrize("way", WAYS)
def test_a_thousand_slots(way: str) -> None:
    """Only the slots that the batch uses are read, however many are resident."""
    ranks = [[2]] * 1000
    case = make_case([999, 0, 512, -1], ranks, in_features=6, widths=[5])
    case.check(case.run(way))


@pytest.mark.parametrize("way", WAYS)
@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    row_slots=st.lists(st.integers(-1, 3), max_size=40),
    ranks=st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=4, max_size=4),
    mode=st.sampled_from(MODES),
    seed=st.integers(0, 99),
)
def test_random_segmentations(
    way: str, row_slots: list[int], ranks: list[tuple[int, int]], mode: str, seed: int
) -> None:
    """Any assignment of rows to adapters of any ranks is right."""
    case = make_case(
        row_slots,
        ranks,
        in_features=sized(24, 1032),
        widths=sized([17, 5], [129, 40]),
        seed=seed,
    )
    case.check(case.run(way, mode))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.usefixtures("rows_keep_their_bits")
def test_a_row_has_the_same_bits_in_any_batch(way: str, dtype: torch.dtype) -> None:
    """Invariant mode: alone, among neighbours of other ranks, and at any position, bit for bit."""
    row_slots = [2, 0, 2, 1, 2, -1, 0, 2, 2, 2, 1, 2, 2, 2, 2, 0, 2, 2, 2, 2, 2, 2]
    case = make_case(
        row_slots, [[8, 3], [16, 16], [5, 0]], in_features=48, widths=[40, 6], dtype=dtype
    )
    case.keeps_its_bits(way, SMALL_TILES if way == "triton" else None, rows=(0, 1, 3, 21))


@pytest.mark.parametrize("tiles", [None, VECTOR_TILES], ids=["tensor cores", "vectors"])
def test_replay_with_more_adapters_than_at_capture(tiles: Tiles | None) -> None:
    """Replayed launches read the plan's tables: other segments, more adapters, other ranks."""
    first = make_case([0] * 9, MIXED_RANKS, in_features=16, widths=[9, 4, 3])
    other = make_case([4, 3, 2, 1, 0, -1, 0, 2, 3], MIXED_RANKS, in_features=16, widths=[9, 4, 3])
    there = first.to(device_of("triton"))
    plan = make_plan(first.row_slots, slots=5, device=there.y.device, static=True)
    y, x = there.y.clone(), there.x.clone()

    def replay() -> None:
        sgmv_(
            y, x, there.a, there.b, there.ranks, there.scales, plan, backend="triton", tiles=tiles
        )

    block_m = tiles.block_m if tiles else 16
    replay()
    first.check(y)
    grid = plan.blocks(block_m).slots.shape
    y.copy_(other.y)
    x.copy_(other.x)
    plan.update_(other.row_slots)
    assert plan.blocks(block_m).slots.shape == grid
    replay()
    other.check(y)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(11, 40)}, r"x \[11, 40\], a \[5, 51, 41\]"),
        ({"x": torch.zeros(10, 41)}, r"plan of 11 rows and 5 slots.*x \[10, 41\]"),
        ({"y": torch.zeros(11, 31)}, r"y \[11, 31\]"),
        ({"ranks": torch.zeros(4, 3, dtype=torch.int32)}, r"ranks \[4, 3\]"),
        ({"ranks": torch.zeros(5, 3)}, "ranks must be int32"),
        ({"x": torch.zeros(11, 41, dtype=torch.float16)}, "one floating type"),
        ({"scales": torch.zeros(3, 5).T}, "contiguous"),
    ],
)
def test_operands_that_do_not_fit_are_refused(
    change: dict[str, torch.Tensor], message: str
) -> None:
    """Wrong shapes and types raise before any launch, and the message shows what was given."""
    case = mixed()
    names = ("y", "x", "a", "b", "ranks", "scales")
    operands = {name: getattr(case, name) for name in names} | change
    plan = make_plan(case.row_slots, slots=5)
    with pytest.raises(ValueError, match=message):
        sgmv_(**operands, plan=plan)


def test_unknown_backend_is_refused() -> None:
    """A bad setting is an error, never a silent fallback."""
    with pytest.raises(ValueError, match="auto, native, torch, triton, got 'cuda'"):
        mixed().run("cuda")


def test_registered_operators_pass_opcheck() -> None:
    """Schemas, mutations and fake kernels are what torch.compile and CUDA graphs rely on."""
    from aril.kernels.sgmv.launch import sgmv_expand, sgmv_shrink  # noqa: PLC0415 - loads Triton

    case = make_case([0, 1, 1], [[2], [2]], in_features=8, widths=[5], dora=[[1], [1]], bias=True)
    case = case.to(device_of("triton"))
    assert case.gains is not None
    table = make_plan(case.row_slots, slots=2, device=case.y.device).blocks(16)
    planes = torch.zeros(1, 3, 2, device=case.y.device)
    torch.library.opcheck(
        sgmv_shrink,
        (planes, case.x, case.a, case.ranks, table.rows, table.slots, 16, 16, 4, 3),
    )
    operands = (
        case.y,
        planes,
        list(case.b),
        case.ranks,
        case.scales,
        table.rows,
        table.slots,
        0,
        0,
        16,
        16,
        4,
    )
    torch.library.opcheck(sgmv_expand, operands)
    torch.library.opcheck(sgmv_expand, (*operands, *case.gains))
    torch.library.opcheck(sgmv_expand, (*operands, *case.gains._replace(bias=None)))
    scales = torch.ones(3, device=case.y.device)
    torch.library.opcheck(sgmv_expand, (*operands, *case.gains, scales))
