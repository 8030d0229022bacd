"""The operations of `FusedKernels` by Triton; each registered operator is one kernel launch.

Nothing here asks the device for a value, so all of it can be captured in a CUDA graph. Tiles
depend on widths alone, and no row's numbers meet another's: its bits don't depend on what is beside
it.

Imported at the first use of the Triton backend, so that a CPU service never loads Triton.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
import triton
from torch import Tensor

from aril.kernels.attention.launch import DevicePlan, attend_triton
from aril.kernels.fused.gates import gate_kernel
from aril.kernels.fused.heads import place_kernel, rotate_kernel
from aril.kernels.fused.norms import norm_kernel
from aril.kernels.registration import operator

if TYPE_CHECKING:
    from aril.kernels.attention import Extras
    from aril.kernels.norm import Norm

# Numbers that a program takes at once: rows that are shorter share one. By geometry, not measured.
NORM_BLOCK = 1024  # a longer row is one program's nevertheless
GATE_BLOCK = 1024
HEAD_BLOCK = 512  # of each half
THREAD = 8  # so many of a half type are one load of 16 bytes
MAX_WARPS = 16


class RowTiles(NamedTuple):
    """Rows and columns of a program, and its warps."""

    block_m: int
    block_n: int
    warps: int


def norm_tiles(width: int) -> RowTiles:
    """Choose for norms of rows, which a program has whole."""
    block_n = triton.next_power_of_2(width)
    block_m = max(1, NORM_BLOCK // block_n)
    return RowTiles(block_m, block_n, warps_for(block_m * block_n))


def gate_tiles(width: int) -> RowTiles:
    """Choose for gates, whose columns have nothing to do with each other."""
    block_n = min(GATE_BLOCK, triton.next_power_of_2(width))
    return RowTiles(GATE_BLOCK // block_n, block_n, warps_for(GATE_BLOCK))


def head_tiles(dim: int) -> RowTiles:
    """Choose how many heads a program takes, and how wide a half of one is there."""
    block_n = triton.next_power_of_2(dim // 2)
    block_m = max(1, HEAD_BLOCK // block_n)
    return RowTiles(block_m, block_n, warps_for(block_m * block_n))


def warps_for(numbers: int) -> int:
    """Return how many warps take so many numbers with a load of 16 bytes a thread."""
    return min(MAX_WARPS, max(1, numbers // (32 * THREAD)))


@operator("add_norm", mutates=("out", "sums"))
def add_norm_op(  # noqa: PLR0917 - the operands of one launch
    out: Tensor, sums: Tensor, x: Tensor, y: Tensor, weight: Tensor, eps: float, offset: float
) -> None:
    """Write sums = x + y, rounded, and out = its norm, rows of the weight's width."""
    _norm(out, sums, x, y, weight, eps, offset, add=True)


@operator("rms_norm", mutates=("out",))
def rms_norm_op(out: Tensor, x: Tensor, weight: Tensor, eps: float, offset: float) -> None:
    """Write out = x's norm, rows of the weight's width."""
    _norm(out, out, x, x, weight, eps, offset, add=False)


def _norm(  # noqa: PLR0917 - the operands of one launch
    out: Tensor,
    sums: Tensor,
    x: Tensor,
    y: Tensor,
    weight: Tensor,
    eps: float,
    offset: float,
    *,
    add: bool,
) -> None:
    width = weight.shape[0]
    rows, tiles = x.numel() // width, norm_tiles(width)
    norm_kernel[(triton.cdiv(rows, tiles.block_m),)](
        *(out, sums, x, y, weight, eps, offset, rows),
        ADD=add,
        WIDTH=width,
        BLOCK_M=tiles.block_m,
        BLOCK_N=tiles.block_n,
        num_warps=tiles.warps,
    )


@operator("gate", mutates=("out",))
def gate_op(out: Tensor, gates: Tensor, up: Tensor, skipped: int, tanh: bool) -> None:
    """Write the gate of rows [T, n], up's beginning so many columns behind its first."""
    rows, width = out.shape
    tiles = gate_tiles(width)
    gate_kernel[(triton.cdiv(rows, tiles.block_m), triton.cdiv(width, tiles.block_n))](
        *(out, gates, up, gates.stride(0), up.stride(0), rows),
        UP=skipped,
        WIDTH=width,
        TANH=tanh,
        BLOCK_M=tiles.block_m,
        BLOCK_N=tiles.block_n,
        num_warps=tiles.warps,
    )


@operator("place_heads", mutates=("q_out", "k_cache", "v_cache"))
def place_op(  # noqa: PLR0917 - the operands of one launch
    q_out: Tensor,
    rows: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    places: Tensor,
    cos: Tensor,
    sin: Tensor,
    q_weight: Tensor | None,
    k_weight: Tensor | None,
    q_eps: float,
    q_offset: float,
    k_eps: float,
    k_offset: float,
) -> None:
    """Take each row's queries, keys and values apart; see `FusedKernels.place_heads_of`."""
    count, heads, dim = q_out.shape
    pages, page, kv_heads, _ = k_cache.shape
    tiles = head_tiles(dim)
    q_blocks, kv_blocks = (triton.cdiv(count * each, tiles.block_m) for each in (heads, kv_heads))
    place_kernel[(q_blocks + 2 * kv_blocks,)](
        *(q_out, k_cache, v_cache, rows, places, cos, sin),
        cos if q_weight is None else q_weight,  # not read without Q_NORM and K_NORM
        cos if k_weight is None else k_weight,
        *(q_eps, q_offset, k_eps, k_offset, pages * page, rows.stride(0), count),
        HEADS=heads,
        KV_HEADS=kv_heads,
        HALF=dim // 2,
        Q_NORM=q_weight is not None,
        K_NORM=k_weight is not None,
        BLOCK_H=tiles.block_m,
        BLOCK_D=tiles.block_n,
        num_warps=tiles.warps,
    )


@operator("rotate", mutates=("out",))
def rotate_op(out: Tensor, x: Tensor, cos: Tensor, sin: Tensor) -> None:
    """Rotate heads [T, heads, d] by their rows' angles [T, d] into out, which is contiguous."""
    count, heads, dim = out.shape
    tiles = head_tiles(dim)
    rotate_kernel[(triton.cdiv(count * heads, tiles.block_m),)](
        *(out, x, cos, sin, x.stride(0), x.stride(1), count),
        HEADS=heads,
        HALF=dim // 2,
        BLOCK_H=tiles.block_m,
        BLOCK_D=tiles.block_n,
        num_warps=tiles.warps,
    )


def rms_norm(x: Tensor, weight: Tensor, eps: float, *, offset: float = 0.0) -> Tensor:
    """See `FusedKernels.rms_norm`."""
    out = torch.empty_like(x)
    if x.numel():
        rms_norm_op(out, x, weight, eps, offset)
    return out


def gate(gates: Tensor, up: Tensor, *, tanh: bool = False) -> Tensor:
    """See `FusedKernels.gate`."""
    out = torch.empty(gates.shape, dtype=gates.dtype, device=gates.device)
    if out.numel():
        gate_op(out, gates, up, 0, tanh)
    return out


def rotate(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """See `FusedKernels.rotate`."""
    q_out, k_out = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, k))
    if len(q):
        rotate_op(q_out, q, cos, sin)
        rotate_op(k_out, k, cos, sin)
    return q_out, k_out


def add_norm(out: Tensor, sums: Tensor, x: Tensor, y: Tensor, norm: Norm) -> None:
    """See `FusedKernels.add_norm`."""
    if len(x):
        add_norm_op(out, sums, x, y, *norm)


def place_heads_of(  # noqa: PLR0917 - the operands, in the order of the formula
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
    """See `FusedKernels.place_heads_of`."""
    q_weight, q_eps, q_offset = q_norm or (None, 0.0, 0.0)
    k_weight, k_eps, k_offset = k_norm or (None, 0.0, 0.0)
    if len(rows):
        place_op(
            *(q_out, rows, k_cache, v_cache, places, cos, sin),
            *(q_weight, k_weight, q_eps, q_offset, k_eps, k_offset),
        )


def gate_halves(out: Tensor, both: Tensor, *, tanh: bool = False) -> None:
    """See `FusedKernels.gate_halves`."""
    if len(out):
        gate_op(out, both, both, out.shape[1], tanh)


def attend(  # noqa: PLR0917 - the operands, in the order of the formula
    out: Tensor,
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    plan: DevicePlan,
    scale: float,
    extras: Extras,
) -> None:
    """See `FusedKernels.attend`."""
    attend_triton(out, q, k_cache, v_cache, plan, scale, extras)


make_plan = DevicePlan


def program() -> None:
    """Return None: a device has its own queue; see `FusedKernels.program`."""


def highest_place(places: Tensor) -> int:  # noqa: ARG001 - see below
    """Return -1: the kernels skip what a cache does not have, and a device is not asked."""
    return -1
