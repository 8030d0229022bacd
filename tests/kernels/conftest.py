"""Kernel tests: memory that nobody wrote is NaN."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

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


def _filled(allocate: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    @functools.wraps(allocate)
    def wrapper(*args: Any, **kwargs: Any) -> torch.Tensor:
        memory = allocate(*args, **kwargs)
        return memory.fill_(float("nan")) if memory.is_floating_point() else memory

    return wrapper
