"""What the tests of a layer's operations share: who computes them, where, and how near."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from aril.kernels.fused import FusedKernels, fused_kernels
from tests.support.device import ON_GPU, device_of

if TYPE_CHECKING:
    from torch import Tensor

BACKENDS = pytest.mark.parametrize("backend", ["native", "triton"])
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])


def kernels_of(backend: str) -> FusedKernels:
    """Return a backend's operations."""
    found = fused_kernels(backend, device_of(backend), torch.float32)
    assert found is not None
    return found


def many(backend: str, rows: int) -> int:
    """So many rows, or a few where each is a program of Triton's interpreter."""
    return min(rows, 11) if backend == "triton" and not ON_GPU else rows


def draw(*shape: int, dtype: torch.dtype, backend: str, seed: int = 0) -> Tensor:
    """Draw normal numbers of a type, where the backend computes."""
    drawn = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return drawn.to(device_of(backend), dtype)


def close(result: Tensor, expected: Tensor) -> None:
    """Hold a result to one rounding of its type, and a few of float32."""
    eps = torch.finfo(result.dtype).eps
    bound = (eps + 2e-6) * expected.abs() + 2e-6 * (1 + expected.abs().max())
    assert bool(((result.double() - expected).abs() <= bound).all())
