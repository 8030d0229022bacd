"""New keys and values go into their slots of the paged cache, and nowhere else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from aril.kernels.attention import store_kv
from tests.support.device import device_of

if TYPE_CHECKING:
    from torch import Tensor

BACKENDS = pytest.mark.parametrize("backend", ["native", "torch", "triton"])


@BACKENDS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_store_writes_its_slots_only(backend: str, dtype: torch.dtype) -> None:
    """Rows land in their slots, -1 is skipped, every other element keeps its bits."""
    device = device_of(backend)
    k, v = torch.randn(2, 5, 3, 7).to(device, dtype)
    k_cache = torch.full((3, 4, 3, 7), 5.0, dtype=dtype, device=device)
    v_cache = torch.full((3, 4, 3, 7), 6.0, dtype=dtype, device=device)
    mapping = torch.tensor([11, -1, 0, 6, -1], device=device)
    store_kv(k, v, k_cache, v_cache, mapping, backend=backend)
    for rows, cache, fill in ((k, k_cache, 5), (v, v_cache, 6)):
        flat = cache.view(12, 3, 7)
        for row, slot in enumerate(mapping.tolist()):
            if slot >= 0:
                assert torch.equal(flat[slot], rows[row])
        others = [slot for slot in range(12) if slot not in (0, 6, 11)]
        assert bool((flat[others] == fill).all())


@BACKENDS
def test_store_from_a_fused_projection(backend: str) -> None:
    """Keys and values may be strided views."""
    device = device_of(backend)
    fused = torch.randn(4, 10, 7, device=device)
    k, v = fused[:, 4:7], fused[:, 7:]
    k_cache, v_cache = torch.zeros(2, 1, 4, 3, 7, device=device)
    store_kv(k, v, k_cache, v_cache, torch.arange(4, device=device), backend=backend)
    assert torch.equal(k_cache[0], k)
    assert torch.equal(v_cache[0], v)


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        (torch.zeros(2, dtype=torch.int64), r"slot_mapping \[2\]"),
        (torch.zeros(3, dtype=torch.int32), "torch.int32"),
    ],
)
def test_store_refuses_what_does_not_fit(mapping: Tensor, message: str) -> None:
    """A mapping of another length or type raises."""
    rows, cache = torch.zeros(3, 2, 4), torch.zeros(2, 4, 2, 4)
    with pytest.raises(ValueError, match=message):
        store_kv(rows, rows, cache, cache.clone(), mapping)


@pytest.mark.parametrize("backend", ["native", "torch"])
def test_places_beyond_the_cache_are_refused(backend: str) -> None:
    """Nothing is written where no cache is, and nothing before that is noticed."""
    rows, cache = torch.ones(2, 2, 4), torch.zeros(2, 4, 2, 4)
    with pytest.raises(IndexError):
        store_kv(rows, rows, cache, cache.clone(), torch.tensor([0, 8]), backend=backend)


@pytest.mark.parametrize("backend", ["native", "torch"])
def test_store_by_a_mapping_with_gaps(backend: str) -> None:
    """Places need not be adjacent in memory."""
    rows, cache = torch.randn(4, 2, 3), torch.zeros(2, 2, 4, 2, 3)
    store_kv(
        rows, rows, cache[0], cache[1], torch.tensor([7, 9, 1, 9, 4, 9, 2, 9])[::2], backend=backend
    )
    assert torch.equal(cache[1].view(8, 2, 3)[[7, 1, 4, 2]], rows)


@pytest.mark.parametrize("backend", ["native", "torch"])
def test_store_refuses_values_of_another_type(backend: str) -> None:
    """Machine code would take their bits for other numbers."""
    rows, cache = torch.randn(4, 2, 3), torch.zeros(2, 2, 4, 2, 3)
    with pytest.raises(RuntimeError, match="dtype"):
        store_kv(rows, rows.bfloat16(), cache[0], cache[1], torch.arange(4), backend=backend)
