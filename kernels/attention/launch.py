"""The registered operators of paged attention: one kernel launch each.

Both kernels that add splits are compiled without fused multiply-adds, so that they round alike: in
the invariant mode a row's bits are then the same from a prefill and from a decode.

Imported at the first use of the Triton backend, so that a CPU service never loads Triton.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
import triton
from torch import Tensor
from triton.runtime.jit import JITFunction

from aril.kernels.attention.merge import merge_kernel
from aril.kernels.attention.sight import FAR, Sight
from aril.kernels.attention.store import store_kernel
from aril.kernels.attention.tiles import AttentionTiles, choose_tiles, processors_of, spread_decodes
from aril.kernels.attention.unified import attend_kernel
from aril.kernels.registration import operator

if TYPE_CHECKING:
    from aril.kernels.attention.scores import Extras

INTERPRETED = not isinstance(attend_kernel, JITFunction)


@operator("paged_attention", mutates=("out", "partial", "stats"))
def attend_op(  # noqa: PLR0917 - the operands of one launch
    out: Tensor,
    partial: Tensor,
    stats: Tensor,
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    block_table: Tensor,
    cu_q: Tensor,
    kv_lens: Tensor,
    sinks: Tensor | None,
    scale: float,
    softcap: float,
    window: int,
    chunked: bool,
    block_m: int,
    block_n: int,
    split: int,
    warps: int,
    stages: int,
) -> None:
    """Attend; `out` has the answer but for the rows whose splits are in `partial` and `stats`."""
    rows, heads, dim = q.shape
    _, page, kv_heads, _ = k_cache.shape
    seqs, _, splits, _ = partial.shape
    group = heads // kv_heads
    blocks = rows // (block_m // group) + seqs
    attend_kernel[(blocks + seqs * (splits - 1), kv_heads)](
        q,
        k_cache,
        v_cache,
        out,
        partial,
        stats,
        block_table,
        cu_q,
        kv_lens,
        q if sinks is None else sinks,  # not read without HAS_SINKS
        seqs,
        splits,
        rows,
        scale,
        softcap,
        window,
        split,
        heads,
        q.stride(0),
        q.stride(1),
        k_cache.stride(0),
        k_cache.stride(1),
        k_cache.stride(2),
        block_table.stride(0),
        GROUP=group,
        DIM=dim,
        PAGE=page,
        HAS_WINDOW=window > 0,
        CHUNKED=chunked,
        HAS_SOFTCAP=softcap > 0,
        HAS_SINKS=sinks is not None,
        BLOCK_M=block_m,
        BLOCK_N=block_n,
        BLOCK_D=max(16, triton.next_power_of_2(dim)),
        UPCAST=INTERPRETED and q.dtype is torch.bfloat16,
        num_warps=warps,
        num_stages=stages,
        enable_fp_fusion=False,
    )


@operator("merge_splits", mutates=("out",))
def merge_op(  # noqa: PLR0917 - the operands of one launch
    out: Tensor,
    partial: Tensor,
    stats: Tensor,
    cu_q: Tensor,
    kv_lens: Tensor,
    sinks: Tensor | None,
    window: int,
    chunked: bool,
    split: int,
) -> None:
    """Finish the decode rows whose keys were walked in several splits."""
    seqs, heads, splits, dim = partial.shape
    merge_kernel[(seqs, heads)](
        partial,
        stats,
        out,
        cu_q,
        kv_lens,
        out if sinks is None else sinks,  # as above
        splits,
        window,
        split,
        heads,
        DIM=dim,
        HAS_WINDOW=window > 0,
        CHUNKED=chunked,
        HAS_SINKS=sinks is not None,
        BLOCK_D=max(16, triton.next_power_of_2(dim)),
        num_warps=1,
        enable_fp_fusion=False,
    )


@operator("store_kv", mutates=("k_cache", "v_cache"))
def store_op(k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor, slot_mapping: Tensor) -> None:
    """Write one row's keys and values per program."""
    pages, page, kv_heads, dim = k_cache.shape
    size = kv_heads * dim
    store_kernel[(k.shape[0],)](
        k,
        v,
        k_cache,
        v_cache,
        slot_mapping,
        pages * page,
        k.stride(0),
        v.stride(0),
        SIZE=size,
        BLOCK=triton.next_power_of_2(size),
    )


class DevicePlan(NamedTuple):
    """What a step's attention needs to know, as it lies on the device: see `paged_attention`."""

    block_table: Tensor
    cu_q: Tensor
    kv_lens: Tensor
    block_size: int
    sight: Sight = FAR
    invariant: bool = False


def attend_triton(  # noqa: PLR0917 - the operands, in the order of the formula
    out: Tensor,
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    plan: DevicePlan,
    scale: float,
    extras: Extras,
    tiles: AttentionTiles | None = None,
) -> None:
    """Attend in one launch, and a second one where a decode may have more keys than a split.

    Out [T, heads, d] is of q's type, contiguous; q's features are adjacent.
    Takes seqs · heads · splits · (d + 2) floats of scratch, splits by the width of the table, which
    should be no wider than the longest sequence: 273 MB for 64 sequences, 32 heads of 128, and a
    table of 131,072 tokens.
    """
    rows, heads, dim = q.shape
    group, seqs = heads // k_cache.shape[2], plan.kv_lens.shape[0]
    room = plan.block_table.shape[1] * plan.block_size
    if tiles is None:
        tiles = _choose(q, plan, group=group, room=room)
    if group > tiles.block_m or tiles.split % tiles.block_n:
        raise ValueError(f"{tiles} cannot hold {group} heads, or splits a tile")
    if rows == 0:
        return
    splits = max(1, triton.cdiv(room, tiles.split))
    partial = torch.empty(seqs, heads, splits, dim, device=q.device, dtype=torch.float32)
    stats = torch.empty(seqs, heads, splits, 2, device=q.device, dtype=torch.float32)
    reach, chunked = plan.sight.reach, plan.sight.chunk is not None
    attend_op(
        out,
        partial,
        stats,
        q,
        k_cache,
        v_cache,
        plan.block_table,
        plan.cu_q,
        plan.kv_lens,
        extras.sinks,
        scale,
        extras.softcap or 0.0,
        reach,
        chunked,
        tiles.block_m,
        tiles.block_n,
        tiles.split,
        tiles.warps,
        tiles.stages,
    )
    if splits > 1:
        merge_op(
            *(out, partial, stats, plan.cu_q, plan.kv_lens, extras.sinks),
            *(reach, chunked, tiles.split),
        )


def _choose(q: Tensor, plan: DevicePlan, *, group: int, room: int) -> AttentionTiles:
    rows, heads, dim = q.shape
    seqs = plan.kv_lens.shape[0]
    tall = not plan.invariant and q.dtype is not torch.float32
    tiles = choose_tiles(rows=rows, seqs=seqs, group=group, dim=dim, tall=tall)
    if plan.invariant or rows > seqs:  # prompts walk their splits one after the other
        return tiles
    return spread_decodes(
        tiles,
        walks=seqs * (heads // group),
        room=room,
        sight=plan.sight,
        processors=processors_of(q.device),
    )


def store_triton(
    k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor, slot_mapping: Tensor
) -> None:
    """Store the rows; k and v may be views of a fused projection."""
    if k.shape[0]:
        k, v = (rows if rows[0].is_contiguous() else rows.contiguous() for rows in (k, v))
        store_op(k, v, k_cache, v_cache, slot_mapping)
