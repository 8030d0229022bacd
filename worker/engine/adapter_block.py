"""An adapter's tensors in one block of pinned memory, and on a GPU by one copy.

Pageable memory makes the host wait for each of some hundred copies, and each of these for the step
that is running.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Final, TypeVar

import torch

from aril.worker.adapters.trained_tokens import TrainedTokens

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from aril.worker.adapters import AdapterWeights, LoraModule
    from aril.worker.adapters.trained_tokens import TokenRows
    from aril.worker.adapters.weights import ExpertsModule

    Value = TypeVar("Value", LoraModule, ExpertsModule, TokenRows)

_ALIGNMENT: Final = 16  # bytes


def pin(adapter: AdapterWeights) -> None:
    """Move what slots take of an adapter into one pinned block, in place; it is read as before.

    Takes as long as copying it once; the old memory is freed. May be called again: each job of the
    adapter does, so one look has to do.
    """
    first = next(_tensors(adapter), None)
    if first is None or first.is_cuda or first.is_pinned():
        return
    tensors = [each for each in _tensors(adapter) if each.device.type == "cpu"]
    places, size = [], 0
    for each in tensors:
        places.append(size)
        size += -(-each.nbytes // _ALIGNMENT) * _ALIGNMENT
    with torch.inference_mode(mode=False):  # the host keeps them longer than a step lasts
        block = torch.empty(size, dtype=torch.uint8, pin_memory=True)
        for each, place in zip(tensors, places, strict=True):
            own = block[place : place + each.nbytes].view(each.dtype).view(each.shape)
            own.copy_(each)
            each.data = own


def on_device(adapter: AdapterWeights, device: torch.device) -> AdapterWeights:
    """Return an adapter whose tensors are on a device, by one copy of what `pin` laid out.

    Nobody waits. Magnitudes stay where they are: no slot takes them.
    """
    tensors = [each for each in _tensors(adapter) if each.device.type == "cpu"]
    block = _block_of(tensors)
    there = {}
    if block is not None:
        sent = block.to(device, non_blocking=True)
        for each in tensors:
            start = each.storage_offset() * each.itemsize
            part = sent[start : start + each.nbytes]
            there[id(each)] = part.view(each.dtype).view(each.shape)

    def moved(own: Value, *names: str) -> Value:
        values = {name: getattr(own, name) for name in names}
        return replace(own, **{name: there.get(id(each), each) for name, each in values.items()})

    tokens = adapter.tokens
    if tokens is not None:
        both = (each and moved(each, "values") for each in (tokens.input, tokens.output))
        tokens = TrainedTokens(*both)
    return replace(
        adapter,
        modules={
            name: moved(each, "a", "b", "bias", "scaled_bias")
            for name, each in adapter.modules.items()
        },
        experts={name: moved(each, "a", "b") for name, each in adapter.experts.items()},
        tokens=tokens,
    )


def _tensors(adapter: AdapterWeights) -> Iterator[Tensor]:
    """List what slots take, each once."""
    tokens = adapter.tokens or TrainedTokens()
    parts = chain(
        ((each.a, each.b, each.bias, each.scaled_bias) for each in adapter.modules.values()),
        ((each.a, each.b) for each in adapter.experts.values()),
        ((each.values,) for each in (tokens.input, tokens.output) if each is not None),
    )
    seen = set()
    for each in chain.from_iterable(parts):
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            yield each


def _block_of(tensors: list[Tensor]) -> Tensor | None:
    """Return the pinned block that all of these lie in, as bytes; None where there is none."""
    if not tensors or not tensors[0].is_pinned():
        return None
    storage = tensors[0].untyped_storage()
    if any(each.untyped_storage().data_ptr() != storage.data_ptr() for each in tensors[1:]):
        return None
    return torch.empty(0, dtype=torch.uint8).set_(storage)
