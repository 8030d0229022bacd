"""Who computes: torch on any device, the Triton kernels, or machine code on a CPU."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec

import torch

BACKENDS = ("auto", "native", "torch", "triton")

_NATIVE_TYPES = frozenset({torch.float32, torch.bfloat16, torch.float16})


def uses_triton(backend: str, device: torch.device) -> bool:
    """Say whether Triton serves operands there: "auto" is Triton on CUDA.

    Raises `ValueError` when there is no such backend.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    return backend == "triton" or (backend == "auto" and device.type == "cuda")


def uses_native(backend: str, device: torch.device, dtype: torch.dtype) -> bool:
    """Say whether native kernels serve operands there: "auto" takes them on a CPU where it can.

    Raises `ValueError` when there is no such backend, or "native" is asked for what it cannot.
    """
    if backend not in {"auto", "native"}:
        uses_triton(backend, device)
        return False
    able = device.type == "cpu" and dtype in _NATIVE_TYPES and _has_numba()
    if backend == "native" and not able:
        raise ValueError(
            f"native kernels need Numba and half types or float32 on a CPU, got {dtype}"
        )
    return able


@cache
def _has_numba() -> bool:
    return find_spec("numba") is not None
