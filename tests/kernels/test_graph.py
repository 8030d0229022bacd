"""CUDA graphs: what a replay relies on, and on a GPU the replays themselves.

A graph keeps addresses and grids. So static tensors stay where they are, the operators trace
without a break, and one graph, captured at the worst case, is right for any later batch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest
import torch
from torch._dynamo import trace_rules

from aril.kernels.sgmv import Gains, GroupShape, LoraPair, StackedWeights, make_plan, sgmv_
from tests.support.device import DEVICE, ON_GPU
from tests.support.sgmv_cases import SgmvCase, make_case

if TYPE_CHECKING:
    from torch import Tensor

    from aril.kernels.sgmv import SgmvPlan

SHAPE = GroupShape(in_features=48, widths=(40, 17, 6), max_rank=16)
SLOTS = 6
ROWS = 24
NEEDS_CUDA = pytest.mark.skipif(not ON_GPU, reason="a GPU captures graphs")


def addresses(plan: SgmvPlan, weights: StackedWeights) -> list[tuple[int, torch.Size]]:
    """Place and shape of everything that a launch is given beside x and y."""
    table = plan.blocks(16)
    tensors = (
        *(weights.a, *weights.b, weights.ranks, weights.scales, *weights.gains),
        *(table.rows, table.slots),
    )
    return [(part.data_ptr(), part.shape) for part in tensors if part is not None]


@dataclass(frozen=True)
class Batch:
    """A later step: whose rows, and which adapters were loaded before it."""

    row_slots: list[int]
    ranks: dict[int, list[int]]  # loaded anew: slot -> rank of each linear, 0 for none
    dora: frozenset[int] = frozenset()


# Each differs from the one before in what a graph must not have kept.
BATCHES = {
    "one adapter": Batch([0] * ROWS, {0: [16, 16, 16]}),
    "more adapters than rows of a block": Batch(
        [row % SLOTS for row in range(ROWS)], {slot: [4, 0, 1 + slot] for slot in range(SLOTS)}
    ),
    "no adapter at all": Batch([-1] * ROWS, {}),
    "smaller ranks in used slots": Batch([5, 4, -1, 0] * 6, {0: [1, 2, 3], 4: [0, 1, 0]}),
    "dora beside lora": Batch([5, 0, -1, 1] * 6, {5: [8, 8, 8], 1: [3, 0, 5]}, frozenset({5, 1})),
    "lora in the slots of dora": Batch([5] * 10 + [1] * 14, {5: [2, 0, 16]}),
    "dora on every row": Batch([2, 3] * 12, {2: [16, 16, 16], 3: [1, 0, 2]}, frozenset({2, 3})),
}


def load(weights: StackedWeights, batch: Batch, *, seed: int) -> None:
    """Put the batch's adapters into their slots."""
    generator = torch.Generator().manual_seed(seed)
    dtype = weights.a.dtype
    for slot, ranks in batch.ranks.items():
        pairs: list[LoraPair | None] = []
        for rank, width in zip(ranks, SHAPE.widths, strict=True):
            a = torch.randn(max(rank, 1), SHAPE.in_features, generator=generator).to(dtype)
            b = torch.randn(width, max(rank, 1), generator=generator).to(dtype)
            gain = torch.randn(width, generator=generator) if slot in batch.dora else None
            pairs.append(LoraPair(a, b, 0.5, gain) if rank else None)
        weights.load(slot, pairs)


def case_of(weights: StackedWeights, x: Tensor, y: Tensor, row_slots: Tensor) -> SgmvCase:
    """Bring the store's content and a step's operands to the host, to be held against fp64."""
    values, present, bias = (None if part is None else part.cpu() for part in weights.gains)
    assert values is not None
    assert present is not None
    return SgmvCase(
        x=x.cpu(),
        y=y.cpu(),
        a=weights.a.cpu(),
        b=tuple(part.cpu() for part in weights.b),
        ranks=weights.ranks.cpu(),
        scales=weights.scales.cpu(),
        row_slots=row_slots.cpu(),
        gains=Gains(values, present, bias),
    )


def store_and_plan(device: str, dtype: torch.dtype) -> tuple[StackedWeights, SgmvPlan]:
    """Make an empty store beside a bias, and a static plan that names no slot yet."""
    bias = torch.linspace(-2, 2, sum(SHAPE.widths), device=device, dtype=dtype)
    weights = StackedWeights(
        SHAPE, SLOTS, device=torch.device(device), dtype=dtype, bias=bias, backend="triton"
    )
    ids = torch.zeros(ROWS, dtype=torch.int32)
    return weights, make_plan(ids, slots=SLOTS, device=device, static=True)


def test_nothing_moves_while_adapters_come_and_go() -> None:
    """Loads, clears and new segments write in place, and a call at the same places is right."""
    weights, plan = store_and_plan(str(DEVICE), torch.float32)
    before = addresses(plan, weights)
    for seed, batch in enumerate(BATCHES.values()):
        load(weights, batch, seed=seed)
        row_slots = torch.tensor(batch.row_slots, dtype=torch.int32)
        plan.update_(row_slots)
        assert addresses(plan, weights) == before
        x = torch.randn(ROWS, SHAPE.in_features).to(DEVICE)
        y = torch.randn(ROWS, sum(SHAPE.widths)).to(DEVICE)
        case = case_of(weights, x, y.clone(), row_slots)
        weights.add_(y, x, plan)
        case.check(y)
    weights.clear(2)
    assert addresses(plan, weights) == before


def test_a_call_is_traced_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.compile takes `sgmv_` without a break, and the traced call is the call."""
    # What is patched cannot be traced, and the tracer may have learned torch's functions by then.
    monkeypatch.undo()
    trace_rules.clear_lru_cache()
    case = make_case(
        [0, 1, -1, 1], [[2, 3], [4, 0]], in_features=8, widths=[5, 6], dora=[[1, 1], [0, 0]],
        bias=True,
    ).to(DEVICE)  # fmt: skip
    plan = make_plan(case.row_slots, slots=2, device=DEVICE, static=True)
    plan.blocks(16)  # built once a step, outside of what is compiled

    def layer(y: Tensor, x: Tensor) -> Tensor:
        out = y * 1
        sgmv_(
            out, x, case.a, case.b, case.ranks, case.scales, plan,
            gains=case.gains, backend="triton",
        )  # fmt: skip
        return out

    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(case.y, case.x), layer(case.y, case.x))
    case.to("cpu").check(compiled(case.y, case.x))


@NEEDS_CUDA
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_one_graph_serves_every_later_batch(dtype: torch.dtype) -> None:
    """Captured at the worst case, replayed with other segments, more adapters, ranks and DoRA."""
    weights, plan = store_and_plan("cuda", dtype)
    x = torch.zeros(ROWS, SHAPE.in_features, device="cuda", dtype=dtype)
    y = torch.zeros(ROWS, sum(SHAPE.widths), device="cuda", dtype=dtype)
    weights.add_(y, x, plan)  # compiles the kernels, which a capture cannot
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        weights.add_(y, x, plan)
    generator = torch.Generator().manual_seed(0)
    for seed, (name, batch) in enumerate(BATCHES.items()):
        load(weights, batch, seed=seed)
        row_slots = torch.tensor(batch.row_slots, dtype=torch.int32)
        plan.update_(row_slots.cuda())
        x.copy_(torch.randn(x.shape, generator=generator))
        y.copy_(torch.randn(y.shape, generator=generator))
        case = case_of(weights, x, y.clone(), row_slots)
        graph.replay()
        torch.cuda.synchronize()
        try:
            case.check(y.cpu())
        except AssertionError as error:
            raise AssertionError(f"{dtype}, {name}: {error}") from error
        untouched = row_slots == -1
        assert torch.equal(y.cpu()[untouched], case.y[untouched])


@NEEDS_CUDA
def test_a_graph_gives_the_bits_of_a_plain_call() -> None:
    """The same launches with the same operands: nothing of the capture is left in the result."""
    weights, plan = store_and_plan("cuda", torch.bfloat16)
    batch = BATCHES["dora beside lora"]
    x = torch.randn(ROWS, SHAPE.in_features, device="cuda", dtype=torch.bfloat16)
    start = torch.randn(ROWS, sum(SHAPE.widths), device="cuda", dtype=torch.bfloat16)
    y = start.clone()
    weights.add_(y, x, plan)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        weights.add_(y, x, plan)
    load(weights, batch, seed=3)
    plan.update_(torch.tensor(batch.row_slots, dtype=torch.int32, device="cuda"))
    y.copy_(start)
    graph.replay()
    plain = start.clone()
    weights.add_(plain, x, plan)
    assert torch.equal(y, plain)


@NEEDS_CUDA
def test_lora_rows_have_the_bits_of_a_call_without_gains() -> None:
    """The compiler rounds the shared expression alike with gains and without."""
    case = make_case(
        [0, 1, -1, 1] * 5, [[16, 9], [7, 16]], in_features=128, widths=[96, 40],
        dtype=torch.bfloat16, dora=[[0, 0], [1, 1]], bias=True,
    )  # fmt: skip
    lora = case.row_slots != 1
    scaled = case.run("triton")
    case.check(scaled)
    assert torch.equal(scaled[lora], replace(case, gains=None).run("triton")[lora])
