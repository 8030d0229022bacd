"""Who computes: torch on any device, or the Triton kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

BACKENDS = ("auto", "torch", "triton")


def uses_triton(backend: str, device: torch.device) -> bool:
    """Say whether Triton serves operands there: "auto" is Triton on CUDA and torch elsewhere.

    Raises `ValueError` when there is no such backend.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    return backend == "triton" or (backend == "auto" and device.type == "cuda")
