"""What stands between a decoder layer's products, one pass each, by whoever computes it.

A backend is a module with these functions: machine code on a CPU, Triton on a GPU. Sums run in fp32
and a result is rounded once; a row's bits are the same whatever rows are beside it. Types are
float32, bfloat16 and float16, one for all operands of a call. Memory is read by address: shapes and
strides are the caller's to check, once a step and not once a call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

import torch

from aril.kernels.backend import uses_native, uses_triton

if TYPE_CHECKING:
    from torch import Tensor

    from aril.kernels.attention import Extras, Sight
    from aril.kernels.norm import Norm
    from aril.kernels.program import Program

_TYPES: Final = frozenset({torch.float32, torch.bfloat16, torch.float16})


class FusedKernels(Protocol):
    """The operations of a layer beside its linears."""

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float, *, offset: float = 0.0) -> Tensor:
        """Return x / √(mean(x²) + eps) · (weight + offset).

        x [..., n] contiguous, weight [n]. RMSNorm: arXiv 1910.07467.
        """

    def gate(self, gates: Tensor, up: Tensor, *, tanh: bool = False) -> Tensor:
        """Return silu(gates) · up, or with `tanh` gelu(gates) · up by its approximation.

        gates and up [T, n] with adjacent columns. SwiGLU, GEGLU: arXiv 2002.05202.
        """

    def rotate(self, q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        """Return heads turned: x · cos + [-x₂, x₁] · sin, x₁ and x₂ being x's halves.

        q [T, heads, d] and k [T, kv_heads, d] with adjacent features; cos and sin [T, d]
        contiguous, d even. RoPE: arXiv 2104.09864.
        """

    def add_norm(self, out: Tensor, sums: Tensor, x: Tensor, y: Tensor, norm: Norm) -> None:
        """Write sums = x + y, rounded to their type, and out = its `rms_norm`.

        All [T, n] contiguous; none overlaps another.
        """

    def place_heads_of(  # noqa: PLR0917 - the operands, in the order of the formula
        self,
        q_out: Tensor,
        rows: Tensor,
        k_cache: Tensor,
        v_cache: Tensor,
        places: Tensor,
        cos: Tensor,
        sin: Tensor,
        q_norm: Norm | None = None,
        k_norm: Norm | None = None,
    ) -> None:
        """Take each row's queries, keys and values apart: rotate, put where attention reads.

        rows [T, (heads + 2 · kv_heads) · d] with adjacent columns, in this order. Queries and keys
        get their norm over d, where there is one, and are rotated by cos and sin [T, d]; queries go
        to q_out [T, heads, d], keys and values to the caches [blocks, page, kv_heads, d] at places
        int64 [T], -1 to none. All but rows contiguous.
        """

    def gate_halves(self, out: Tensor, both: Tensor, *, tanh: bool = False) -> None:
        """Write the `gate` of both[:, :n] and both[:, n:] to out [T, n] contiguous."""

    def make_plan(
        self,
        block_table: Tensor,
        cu_q: Tensor,
        kv_lens: Tensor,
        *,
        block_size: int,
        sight: Sight = ...,
        invariant: bool = False,
    ) -> Any:
        """Return what `attend` needs to know of a step, the same for every layer of one sight."""

    def attend(  # noqa: PLR0917 - the operands, in the order of the formula
        self,
        out: Tensor,
        q: Tensor,
        k_cache: Tensor,
        v_cache: Tensor,
        plan: Any,
        scale: float,
        extras: Extras,
    ) -> None:
        """Write the attention of a step's rows q [T, heads, d] to out, of its shape, contiguous.

        As `paged_attention` over the same operands.
        """

    def program(self) -> Program | None:
        """Return what a step's calls of these can be written into, empty; None: they run at once.

        A thread has one.
        """

    def highest_place(self, places: Tensor) -> int:
        """Return the highest place of a step, for who would write beyond a cache there; or -1."""


def fused_kernels(backend: str, device: torch.device, dtype: torch.dtype) -> FusedKernels | None:
    """Return the operations for a backend's operands there; None where torch computes.

    Raises `ValueError` when there is no such backend, or "native" is asked for what it cannot.
    """
    if uses_triton(backend, device):
        from aril.kernels.fused import launch  # noqa: PLC0415 - loads Triton

        return launch if dtype in _TYPES else None
    if uses_native(backend, device, dtype):
        from aril.kernels.fused import native  # noqa: PLC0415 - loads Numba

        return native
    return None
