"""An adapter in one pinned block is the adapter that it was, here and on a GPU."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from aril.worker.adapters.trained_tokens import TokenRows, TrainedTokens
from aril.worker.adapters.weights import ExpertsModule
from aril.worker.engine.adapter_block import on_device, pin
from tests.support.weights import random_adapter

if TYPE_CHECKING:
    from aril.worker.adapters import AdapterWeights
    from tests.support.fake_gpu import FakeGpu


def drawn(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Draw one tensor."""
    return torch.randn(*shape).to(dtype)


def adapter() -> AdapterWeights:
    """Make one with all that there is: odd sizes, several types, and experts of any strides."""
    plain = random_adapter({"q": (7, 5), "k": (3, 5)}, rank=3, dora=True)
    modules = dict(plain.modules)
    bias = drawn(3)
    modules["k"] = replace(
        modules["k"], bias=bias, scaled_bias=bias, b=drawn(3, 3, dtype=torch.bfloat16)
    )
    rows = TokenRows((1, 2), drawn(2, 5, dtype=torch.float16))
    experts = {"up": ExpertsModule(2, 1.0, drawn(4, 5, 2).transpose(1, 2), drawn(4, 6, 2))}
    return replace(plain, modules=modules, experts=experts, tokens=TrainedTokens(rows, rows))


def tensors(weights: AdapterWeights) -> list[torch.Tensor]:
    """List what slots take of one."""
    assert weights.tokens is not None
    assert weights.tokens.input is not None
    parts = [*weights.modules.values(), *weights.experts.values()]
    found = [
        getattr(part, name, None) for part in parts for name in ("a", "b", "bias", "scaled_bias")
    ]
    return [each for each in (*found, weights.tokens.input.values) if each is not None]


def test_what_is_pinned_is_read_as_before(gpu: FakeGpu) -> None:
    """All of it in one block, each tensor at a multiple of 16 bytes; the second time is free."""
    weights = adapter()
    before = [each.clone() for each in tensors(weights)]
    magnitude = weights.modules["q"].magnitude
    pin(weights)
    places = [each.data_ptr() for each in tensors(weights)]
    blocks = {each.untyped_storage().data_ptr() for each in tensors(weights)}
    assert len(blocks) == 1
    assert all((place - min(places)) % 16 == 0 for place in places)
    assert all(gpu.pinned(each) for each in tensors(weights))
    assert weights.modules["q"].magnitude is magnitude
    for one, other in zip(tensors(weights), before, strict=True):
        assert torch.equal(one, other)
        assert one.dtype is other.dtype
    pin(weights)
    assert [each.data_ptr() for each in tensors(weights)] == places


def test_it_comes_to_a_device_by_one_copy(gpu: FakeGpu) -> None:
    """The same numbers, of the same types; what tables share they share there."""
    weights = adapter()
    pin(weights)
    gpu.reset()
    there = on_device(weights, torch.device("cuda"))
    assert (len(gpu.told), gpu.late, gpu.reads) == (1, [], [])
    for one, other in zip(tensors(there), tensors(weights), strict=True):
        assert one.is_cuda
        assert torch.equal(one.cpu(), other)
        assert one.dtype is other.dtype
    assert there.tokens is not None
    assert there.tokens.input is not None
    assert there.tokens.output is not None
    assert there.tokens.input.ids == (1, 2)
    empty = replace(weights, modules={}, experts={}, tokens=None)
    pin(empty)
    assert on_device(empty, torch.device("cuda")).modules == {}
