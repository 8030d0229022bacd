"""LoRA of rows together and apart on a CPU: some linears, gains, scales."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch

from aril.kernels.native.lora import AT_ONCE
from aril.kernels.sgmv import GroupShape, LoraPair, make_plan, make_slot_weights
from aril.kernels.sgmv.row_tasks import TOGETHER, cut_into_tasks
from aril.kernels.sgmv.segments import find_segments

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from aril.kernels.sgmv import SlotWeights

BACKENDS = pytest.mark.parametrize("backend", ["native", "torch"])


def draw(*shape: int, seed: int = 0) -> Tensor:
    """Draw in fp32."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def load(
    backend: str,
    shape: GroupShape,
    adapters: Sequence[Sequence[LoraPair | None]],
    bias: Tensor | None = None,
) -> SlotWeights:
    """Fill a slot with each adapter."""
    weights = make_slot_weights(shape, len(adapters), bias=bias, backend=backend)
    for slot, pairs in enumerate(adapters):
        weights.load(slot, pairs)
    return weights


def expected(
    y: Tensor,
    x: Tensor,
    row_slots: Sequence[int],
    adapters: Sequence[Sequence[LoraPair | None]],
    bias: Tensor | None,
) -> Tensor:
    """Do the same in fp64 by the definition, row by row."""
    y = y.double()
    for row, slot in enumerate(row_slots):
        if slot < 0:
            continue
        start = 0
        widths = [len(pair.b) for pair in adapters[0] if pair is not None]  # slot 0 has them all
        for pair, width in zip(adapters[slot], widths, strict=True):
            own = y[row, start : start + width]
            beta = 0 if bias is None else bias[start : start + width].double()
            if pair is not None:
                delta = pair.scale * (pair.b.double() @ (pair.a.double() @ x[row].double()))
                gain = 1 if pair.gain is None else pair.gain.double()
                own.copy_(gain * (own - beta + delta) + beta)
            start += width
    return y


@BACKENDS
@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("wide", [5, AT_ONCE + 3])
@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("count", [1, 3, 4 * TOGETHER + 3])
def test_rows_match_the_definition(
    backend: str, count: int, wide: int, *, apart: bool, with_bias: bool, dora: bool
) -> None:
    """Few and more rows, together and apart, narrow and wide, all linears and some, with gains."""
    shape = GroupShape(9, (wide, 3), max_rank=7)
    first = LoraPair(draw(7, 9, seed=1), draw(wide, 7, seed=2), 0.3)
    second = LoraPair(draw(2, 9, seed=3), draw(3, 2, seed=4), 3.0)
    if dora:
        first = replace(first, gain=draw(wide, seed=5))
    adapters = ((first, second), (None, second), (first, None))
    bias = draw(wide + 3, seed=6) if with_bias else None
    row_slots = [slot for slot in (0, -1, 1, 2) for _ in range(count)]
    if apart:
        row_slots = [slot for _ in range(count) for slot in (0, -1, 1, 2)]
    x, y = draw(len(row_slots), 9, seed=7), draw(len(row_slots), wide + 3, seed=8)
    right = expected(y, x, row_slots, adapters, bias)
    plan = make_plan(torch.tensor(row_slots, dtype=torch.int32), slots=3)
    load(backend, shape, adapters, bias).add_(y, x, plan)
    torch.testing.assert_close(y.double(), right, rtol=1e-5, atol=1e-4)


@BACKENDS
def test_nothing_of_a_segment_is_left_for_the_next(backend: str) -> None:
    """Adapters of one layout and of others take turns, call after call."""
    shape = GroupShape(6, (4, 4), max_rank=3)

    def adapter(rank: int, seed: int) -> list[LoraPair | None]:
        return [LoraPair(draw(rank, 6, seed=seed), draw(4, rank, seed=seed + 1), 1.0)] * 2

    adapters = [adapter(3, 10), adapter(3, 20), adapter(1, 30), [None, *adapter(2, 40)[1:]]]
    weights = load(backend, shape, adapters)
    row_slots = [0, 0, 1, 1, 2, 2, 3, 3]
    plan = make_plan(torch.tensor(row_slots, dtype=torch.int32), slots=4)
    for call in range(3):
        x, y = draw(8, 6, seed=call), draw(8, 8, seed=50 + call)
        right = expected(y, x, row_slots, adapters, None)
        weights.add_(y, x, plan)
        torch.testing.assert_close(y.double(), right, rtol=1e-5, atol=1e-5)


@BACKENDS
@pytest.mark.parametrize(("rank", "width"), [(1, 4), (3, 1), (2, 2)])
def test_the_scale_does_not_reach_the_given_weights(backend: str, rank: int, width: int) -> None:
    """B is scaled in the slot's own copy, also where its transpose needs none."""
    pair = LoraPair(draw(rank, 5), draw(width, rank, seed=1), 3.0)
    kept = pair.b.clone()
    load(backend, GroupShape(5, (width,), max_rank=3), [[pair]])
    assert torch.equal(pair.b, kept)


def test_gradients_are_not_bypassed() -> None:
    """Torch's path is seen by autograd; machine code, which is not, refuses."""
    pair = LoraPair(draw(2, 5), draw(4, 2, seed=1), 1.0)
    plan = make_plan(torch.tensor([0], dtype=torch.int32), slots=1)
    x, y = draw(1, 5, seed=2).requires_grad_(), torch.zeros(1, 4)
    with pytest.raises(ValueError, match="gradients"):
        load("native", GroupShape(5, (4,), max_rank=2), [[pair]]).add_(y, x, plan)
    load("torch", GroupShape(5, (4,), max_rank=2), [[pair]]).add_(y, x, plan)
    y.sum().backward()
    torch.testing.assert_close(x.grad, (pair.a.T @ pair.b.T).sum(1)[None])


@BACKENDS
@pytest.mark.parametrize(("rows", "width"), [(2, 4), (4, 4)])
def test_rows_that_are_not_the_plans_are_refused(backend: str, rows: int, width: int) -> None:
    """Fewer or more rows than the plan has: an error, not another row's adapter, or memory."""
    pair = LoraPair(draw(2, 5), draw(4, 2, seed=1), 1.0)
    weights = load(backend, GroupShape(5, (4,), max_rank=2), [[pair]])
    plan = make_plan(torch.zeros(3, dtype=torch.int32), slots=1)
    with pytest.raises(ValueError, match="mismatch"):
        weights.add_(torch.zeros(rows, width), draw(rows, 5), plan)


@pytest.mark.parametrize(("y", "x"), [((3, 5), (3, 5)), ((3, 4), (3, 6)), ((3, 3), (3, 5))])
def test_operands_of_another_width_are_refused(y: tuple[int, int], x: tuple[int, int]) -> None:
    """Machine code would read or write what lies beside them."""
    pair = LoraPair(draw(2, 5), draw(4, 2, seed=1), 1.0)
    weights = load("native", GroupShape(5, (4,), max_rank=2), [[pair]])
    plan = make_plan(torch.zeros(3, dtype=torch.int32), slots=1)
    with pytest.raises(ValueError, match="mismatch"):
        weights.add_(torch.zeros(y), torch.zeros(x), plan)


def test_tasks_cover_each_row_once() -> None:
    """Rows in tasks of their own adapter, with the rows' scales."""
    ids = [0] * (4 * TOGETHER + 1) + [1, -1] * (TOGETHER + 2) + [2] * TOGETHER
    scales = torch.arange(len(ids), dtype=torch.float32)
    slots = torch.tensor(ids, dtype=torch.int32)
    cut = cut_into_tasks(find_segments(slots, torch.device("cpu"), scales))
    assert cut.scales is not None
    seen = []
    for slot, first, count in cut.tasks.tolist():
        assert 1 <= count <= TOGETHER
        rows = cut.rows[first : first + count].tolist()
        assert all(ids[row] == slot for row in rows)
        assert cut.scales[first : first + count].tolist() == rows
        seen += rows
    assert sorted(seen) == [row for row, slot in enumerate(ids) if slot >= 0]


def test_a_row_has_its_own_bits_in_an_invariant_plan() -> None:
    """Alone, among two and among forty of its adapter, and beside others: the same bits."""
    shape = GroupShape(33, (20, 7), max_rank=5)
    pairs: list[LoraPair | None] = [
        LoraPair(draw(5, 33, seed=1), draw(20, 5, seed=2), 0.5),
        LoraPair(draw(3, 33, seed=3), draw(7, 3, seed=4), 2.0),
    ]
    weights = load("native", shape, [pairs, [None, pairs[1]]])
    x, y = draw(40, 33, seed=5), draw(40, 27, seed=6)

    def added(rows: list[int], slots: list[int]) -> Tensor:
        own = y[rows].clone()
        ids = torch.tensor(slots, dtype=torch.int32)
        weights.add_(own, x[rows], make_plan(ids, slots=2, mode="invariant"))
        return own

    whole = added(list(range(40)), [0] * 40)
    assert torch.equal(added([7], [0])[0], whole[7])
    assert torch.equal(added([39, 7, 3], [1, 0, 0])[1:], whole[[7, 3]])
