"""Registers Aril's kernel launches with torch, so that torch.compile and CUDA graphs see them.

`torch.library.custom_op` would do the same at more than twice the cost of a call on the host: it
also guards autograd, which these operators have none of (`python -m benchmarks.operator_call`).
"""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torch import Tensor
    from torch._ops import OpOverload

_LIBRARY = torch.library.Library("aril", "FRAGMENT")  # lives as long as its operators are wanted


def operator(name: str, *, mutates: Iterable[str]) -> Callable[[Callable[..., None]], OpOverload]:
    """Register a function as `aril::name`, for every device; it writes to the named arguments only.

    It is launched on the GPU of its first argument: Triton takes the thread's current one.
    Inference only: what it does is not recorded for gradients.
    """

    def register(function: Callable[..., None]) -> OpOverload:
        schema = torch.library.infer_schema(function, mutates_args=list(mutates))
        _LIBRARY.define(name + schema)
        _LIBRARY.impl(name, _on_its_device(function), "CompositeExplicitAutograd")
        torch.library.register_fake(f"aril::{name}", _no_output, lib=_LIBRARY)
        overload: OpOverload = getattr(torch.ops.aril, name).default
        return overload

    return register


def _on_its_device(function: Callable[..., None]) -> Callable[..., None]:
    @wraps(function)
    def launch(first: Tensor, *rest: object, **more: object) -> None:
        if first.is_cuda and first.device.index != torch.cuda.current_device():
            with torch.cuda.device(first.device):
                function(first, *rest, **more)
        else:
            function(first, *rest, **more)

    return launch


def _no_output(*_args: object) -> None:
    """Every operator of ours only writes to its arguments."""
