"""What the layers of a model are told while it runs over packed rows.

A context variable holds it for the thread that runs the model: not every model hands keyword
arguments on to its layers (StableLM, Nemotron, GPT-J), and two models can run in two threads.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from aril.kernels.attention import Sight

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    from aril.kernels.fused import FusedKernels


@dataclass(frozen=True, slots=True)
class AttentionLayout:
    """What one attention layer stores and how it looks back."""

    layer: int
    heads: int
    kv_heads: int
    head_dim: int  # of keys and values as they are stored: the wider of the two
    scale: float
    window: int | None  # a query sees itself and the window - 1 tokens before it; None: all
    chunk: int | None = None  # a query sees its own chunk of so many tokens; None: all
    softcap: float | None = None  # scores x become softcap · tanh(x / softcap)
    # [heads]: the layer's own, a logit a head that takes part in the softmax and has no value
    sinks: Tensor | None = field(default=None, compare=False, repr=False)

    @property
    def sight(self) -> Sight:
        """How far back a query sees."""
        return Sight(self.window, self.chunk)


class AttentionContext(Protocol):
    """Takes the attention calls of one forward pass."""

    kernels: FusedKernels | None  # for what is between products; None: torch computes it

    def attend(self, layout: AttentionLayout, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the output [T, heads, d] of q [T, heads, d] and k, v [T, kv_heads, d]."""


@dataclass(slots=True, eq=False)
class ForwardPass:
    """What a layer cannot be told by its arguments; T packed tokens."""

    context: AttentionContext
    positions: Tensor | None = None  # [T] int64; None: one sequence from its beginning
    lengths: Tensor | None = None  # [T] int64: what the frequencies of RoPE go by
    rows: Any = None  # the `StepRows` that layers of ours share, once one has run


_PASS: ContextVar[ForwardPass | None] = ContextVar("forward pass", default=None)


@contextmanager
def attending(
    context: AttentionContext, positions: Tensor | None = None, lengths: Tensor | None = None
) -> Iterator[None]:
    """Give this context the attention calls of a model that runs meanwhile, in this thread."""
    token = _PASS.set(ForwardPass(context, positions, lengths))
    try:
        yield
    finally:
        _PASS.reset(token)


def under_way() -> ForwardPass | None:
    """Return the forward pass under way over packed rows; None in a model's own."""
    return _PASS.get()


def lead(module: Any, name: str, ours: Callable[..., Any]) -> None:
    """Have a method do `ours` over packed rows, and what transformers wrote otherwise."""
    own = getattr(module, name)

    def either(*args: Any, **more: Any) -> Any:
        return (own if under_way() is None else ours)(*args, **more)

    setattr(module, name, either)
