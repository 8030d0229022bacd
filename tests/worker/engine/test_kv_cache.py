"""The paged cache: each layer's memory is its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

if TYPE_CHECKING:
    from aril.worker.engine.kv_cache import KVCache


def test_each_layer_has_its_own_memory_and_shape(cache: KVCache) -> None:
    """Layers take the shape of their KV heads, and none sees another's keys or values."""
    assert cache.k[0].shape == cache.v[2].shape == (6, 4, 2, 8)
    assert cache.k[1].shape == (6, 4, 1, 8)
    tensors = [*cache.k.values(), *cache.v.values()]
    for number, tensor in enumerate(tensors):
        tensor.fill_(number)
    assert [float(tensor.mean()) for tensor in tensors] == list(range(6))
    assert all(tensor.is_contiguous() for tensor in tensors)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_one_number_in_any_layer_is_found(cache: KVCache, number: float) -> None:
    """In its own block and in no other."""
    for tensor in (*cache.k.values(), *cache.v.values()):
        tensor.normal_()
        tensor[2, 1, -1, 3] = number
        assert cache.finite(torch.tensor([4, 2, 0])).tolist() == [True, False, True]
        tensor[2] = 0
    assert cache.finite(torch.arange(6)).all()
