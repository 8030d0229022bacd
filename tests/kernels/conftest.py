"""Kernel tests: memory that nobody wrote is NaN; products that keep a row's bits, for some."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

from tests.support.interpreter import round_to_nearest

if TYPE_CHECKING:
    from collections.abc import Callable

# Triton's interpreter turns one-element arrays into loop bounds.
INTERPRETER_WARNING = "ignore:Conversion of an array with ndim > 0:DeprecationWarning"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the interpreter's own deprecated call pass, in this folder only."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings(INTERPRETER_WARNING))


@pytest.fixture(autouse=True)
def nan_filled_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fill what `torch.empty` hands out with NaN, so that an unwritten output fails its test."""
    for name in ("empty", "empty_like"):
        monkeypatch.setattr(torch, name, _filled(getattr(torch, name)))


@pytest.fixture
def rows_keep_their_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the interpreter's products round a row alike wherever it stands, as tensor cores do.

    It hands them to numpy's BLAS, some of whose kernels round by a row's place in the matrix: that
    would be tested, and not the order in which ours add up.
    """

    def create_dot(_: InterpreterBuilder, a: Any, b: Any, d: Any, *__: object) -> TensorHandle:
        x, y = a.data.astype(d.data.dtype), b.data.astype(d.data.dtype)
        total = np.zeros_like(d.data)
        for k in range(x.shape[-1]):
            total += x[..., :, k : k + 1] * y[..., k : k + 1, :]
        return TensorHandle(total + d.data, d.dtype.scalar)

    monkeypatch.setattr(InterpreterBuilder, "create_dot", create_dot)


@pytest.fixture
def rounds_to_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the interpreter round to bfloat16 as a GPU does."""
    round_to_nearest(monkeypatch)


def _filled(allocate: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    @functools.wraps(allocate)
    def wrapper(*args: Any, **kwargs: Any) -> torch.Tensor:
        memory = allocate(*args, **kwargs)
        return memory.fill_(float("nan")) if memory.is_floating_point() else memory

    return wrapper
