"""Linears that are computed together: each gets its own product, once, in any order."""

from __future__ import annotations

from itertools import permutations
from typing import TYPE_CHECKING

import pytest
import torch

from aril.worker.engine.config import EngineConfig
from aril.worker.engine.lora import AdapterLayers
from tests.support.launches import LaunchCounter

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from aril.worker.engine.groups import LinearGroup
    from aril.worker.engine.model import Backbone

CONFIG = EngineConfig(
    max_rows=4, max_step_tokens=32, slots=3, max_rank=8, kv_tokens=64, backend="torch"
)


def attention_group(backbone: Backbone) -> tuple[AdapterLayers, LinearGroup]:
    """Install the layers; return them and the first layer's q, k, v."""
    layers = AdapterLayers(backbone, CONFIG)
    return layers, next(group for group in layers.groups if len(group.names) == 3)


def test_group_computes_once_and_keeps_nothing(backbone: Backbone) -> None:
    """Members share one product; a new step or another input computes anew; then memory is free."""
    layers, group = attention_group(backbone)
    q, k, v = group.members
    x = torch.randn(1, 5, 64)
    with LaunchCounter() as counter:
        outputs = [q(x), k(x), v(x)]
    assert counter.calls["aten::mm"] == 1
    assert torch.equal(torch.cat(outputs, dim=-1), x @ group.weight.T)
    assert group._pending is None
    first = q(x)
    x.mul_(2.0)  # a buffer that is used again, as under a CUDA graph
    layers.begin((), ())
    assert group._pending is None
    assert torch.equal(k(x), 2 * (x / 2 @ k.weight.T))
    assert torch.equal(q(x), 2 * first)
    assert torch.equal(q(x), 2 * first)  # called twice with one input
    v(x)
    other = torch.randn(1, 5, 64)
    assert torch.equal(v(other), (other @ group.weight.T)[..., -32:])
    assert group._pending is None  # what was left of x is not kept for a guess that was wrong
    assert q(other).shape == (1, 5, 64)
    assert k(other).shape == (1, 5, 32)
    assert v(other).shape == (1, 5, 32)
    assert group._pending is None


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_members_are_right_in_any_order(order: tuple[int, ...], backbone: Backbone) -> None:
    """Whoever comes first, with its own or another's input, gets its own product of it."""
    _, group = attention_group(backbone)
    for _ in range(2):
        x, other = torch.randn(1, 5, 64), torch.randn(1, 5, 64)
        for index in (*order, *order):  # the second time there is nothing left to pick up
            assert torch.equal(group.members[index](x), part(group, index, x))
        for index, given in zip(order, (x, other, x), strict=True):
            assert torch.equal(group.members[index](given), part(group, index, given))


def part(group: LinearGroup, index: int, x: Tensor) -> Tensor:
    """Return one member's share of the whole group's product."""
    return (x @ group.weight.T).split(group.widths, dim=-1)[index]


def test_steps_are_compiled_once(backbone: Backbone) -> None:
    """What one member leaves for another is no state that a compiler would see change."""
    layers, group = attention_group(backbone)
    compiled: list[object] = []

    def backend(graph: torch.fx.GraphModule, _inputs: object) -> Callable[..., object]:
        compiled.append(graph)
        return graph.forward

    def attention(x: Tensor) -> Tensor:
        return torch.cat([member(x) for member in group.members], dim=-1)

    torch._dynamo.reset()
    run = torch.compile(attention, backend=backend, fullgraph=True)
    for _ in range(4):
        layers.begin((), ())
        x = torch.randn(1, 5, 64)
        assert torch.equal(run(x), x @ group.weight.T)
    assert len(compiled) == 1
    assert group._pending is None
