"""The threads that torch has, in which machine code runs: a second pool would fight for cores."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable


def _find_runtime() -> Path | None:
    """Find the OpenMP runtime that torch has loaded; None where it has another than GNU's."""
    packages = Path(torch.__file__).parent
    found = [*packages.glob("lib/libgomp*.so*"), *packages.parent.glob("torch.libs/libgomp*.so*")]
    return found[0] if found else None


def _parallel(kind: Callable[[str], Any]) -> Any:
    """Return what runs a function in each thread; None where tasks are the caller's alone."""
    if _RUNTIME is None:
        return None
    parallel = kind(str(_RUNTIME)).GOMP_parallel
    parallel.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    parallel.restype = None
    return parallel


_RUNTIME = _find_runtime()

keeping_gil = _parallel(ctypes.PyDLL)
releasing_gil = _parallel(ctypes.CDLL)

give_way: int = 0
"""The address of the function that lets others have the core; 0 where there is none."""
with suppress(AttributeError, OSError):
    give_way = ctypes.cast(ctypes.CDLL(None).sched_yield, ctypes.c_void_p).value or 0
