"""Segments of few rows by numpy: shared buffers, rows apart, scales within B. CPU only."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch

from kernels.sgmv import GroupShape, LoraPair, PackedWeights, make_plan
from kernels.sgmv.packed.numpy_sums import MOST_ROWS_ONE_BY_ONE, WIDE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

CPU = torch.device("cpu")


def draw(*shape: int, seed: int = 0) -> Tensor:
    """Draw in fp32."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def load(
    shape: GroupShape, adapters: Sequence[Sequence[LoraPair | None]], bias: Tensor | None = None
) -> PackedWeights:
    """Fill a slot with each adapter."""
    weights = PackedWeights(shape, len(adapters), device=CPU, dtype=torch.float32, bias=bias)
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


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("wide", [5, WIDE])
@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("count", [1, MOST_ROWS_ONE_BY_ONE, MOST_ROWS_ONE_BY_ONE + 1])
def test_rows_match_the_definition(
    count: int, wide: int, *, apart: bool, with_bias: bool, dora: bool
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
    load(shape, adapters, bias).add_(y, x, plan)
    torch.testing.assert_close(y.double(), right, rtol=1e-5, atol=1e-4)


def test_nothing_of_a_segment_is_left_for_the_next() -> None:
    """Adapters of one layout and of others take turns in the same buffers, call after call."""
    shape = GroupShape(6, (4, 4), max_rank=3)

    def adapter(rank: int, seed: int) -> list[LoraPair | None]:
        return [LoraPair(draw(rank, 6, seed=seed), draw(4, rank, seed=seed + 1), 1.0)] * 2

    adapters = [adapter(3, 10), adapter(3, 20), adapter(1, 30), [None, *adapter(2, 40)[1:]]]
    weights = load(shape, adapters)
    row_slots = [0, 0, 1, 1, 2, 2, 3, 3]
    plan = make_plan(torch.tensor(row_slots, dtype=torch.int32), slots=4)
    for call in range(3):
        x, y = draw(8, 6, seed=call), draw(8, 8, seed=50 + call)
        right = expected(y, x, row_slots, adapters, None)
        weights.add_(y, x, plan)
        torch.testing.assert_close(y.double(), right, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("rank", "width"), [(1, 4), (3, 1), (2, 2)])
def test_the_scale_does_not_reach_the_given_weights(rank: int, width: int) -> None:
    """B is scaled in the slot's own copy, also where its transpose needs none."""
    pair = LoraPair(draw(rank, 5), draw(width, rank, seed=1), 3.0)
    kept = pair.b.clone()
    load(GroupShape(5, (width,), max_rank=3), [[pair]])
    assert torch.equal(pair.b, kept)


def test_gradients_are_not_bypassed() -> None:
    """Operands that ask for gradients take the torch path, where autograd sees the sum."""
    pair = LoraPair(draw(2, 5), draw(4, 2, seed=1), 1.0)
    weights = load(GroupShape(5, (4,), max_rank=2), [[pair]])
    x, y = draw(1, 5, seed=2).requires_grad_(), torch.zeros(1, 4)
    weights.add_(y, x, make_plan(torch.tensor([0], dtype=torch.int32), slots=1))
    y.sum().backward()
    torch.testing.assert_close(x.grad, (pair.a.T @ pair.b.T).sum(1)[None])


def test_rows_that_are_not_the_plans_are_refused() -> None:
    """Fewer rows than the plan has: an error, not another row's adapter."""
    pair = LoraPair(draw(2, 5), draw(4, 2, seed=1), 1.0)
    weights = load(GroupShape(5, (4,), max_rank=2), [[pair]])
    plan = make_plan(torch.zeros(3, dtype=torch.int32), slots=1)
    with pytest.raises(ValueError, match="mismatch"):
        weights.add_(torch.zeros(2, 4), draw(2, 5), plan)
