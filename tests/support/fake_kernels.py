"""What Aril's kernels do, in a few words of torch: for a device that is none, where they never run.

Triton's interpreter takes seconds for a step. The kernels are held to fp64 by tests of their own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch
from torch.nn.functional import gelu, silu

from aril.kernels.attention import paged_attention

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


def store(k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor, places: Tensor) -> None:
    """Do `aril::store_kv`."""
    kept = places >= 0
    k_cache.flatten(0, 1)[places[kept]] = k[kept]
    v_cache.flatten(0, 1)[places[kept]] = v[kept]


def attend(out: Tensor, _partial: Tensor, _stats: Tensor, *operands: Any) -> None:
    """Do `aril::paged_attention`, of all rows."""
    *tensors, sinks, scale, softcap, window, chunked = operands[:11]
    out.copy_(
        paged_attention(
            *tensors,
            scale=scale,
            window=window if window and not chunked else None,
            chunk=window if window and chunked else None,
            softcap=softcap or None,
            sinks=sinks,
            backend="torch",
        )
    )


def shrink(planes: Tensor, x: Tensor, a: Tensor, ranks: Tensor, *table: Any) -> None:
    """Do `aril::sgmv_shrink`: all of it in the first plane."""
    block_rows, block_slots = table[:2]
    rows, slots = _owners(block_rows, block_slots, len(x))
    most = planes.shape[2] // ranks.shape[1]
    live = torch.arange(most) < ranks[slots.long()][:, :, None]  # [rows, slices, r_max]
    planes.zero_()
    planes[0, rows] = torch.einsum("nk,nrk->nr", x[rows].float(), a[slots].float()) * live.flatten(
        1
    )


def expand(
    y: Tensor,
    planes: Tensor,
    b: list[Tensor],
    ranks: Tensor,
    scales: Tensor,
    block_rows: Tensor,
    block_slots: Tensor,
    first_slice: int,
    column: int,
    *more: Any,
) -> None:
    """Do `aril::sgmv_expand`."""
    gains, present, bias, row_scales = (*more[3:], None, None, None, None)[:4]
    rows, slots = _owners(block_rows, block_slots, len(y))
    for place, part in enumerate(b, start=first_slice):
        width, most = part.shape[1:]
        shrunk = planes.sum(0)[rows, place * most : (place + 1) * most]
        delta = torch.einsum("nr,nwr->nw", shrunk, part[slots].float()) * scales[slots, place, None]
        if row_scales is not None:
            delta *= row_scales[rows, None]
        columns = slice(column, column + width)
        before = y[rows, columns].float()
        after = before + delta
        if gains is not None:
            own = 0 if bias is None else bias[columns].float()
            scaled = gains[slots, columns] * (before - own + delta) + own
            after = torch.where(present[slots, place, None] != 0, scaled, after)
        after = torch.where(ranks[slots, place, None] > 0, after, before)
        y[rows, columns] = after.to(y.dtype)
        column += width


def _owners(block_rows: Tensor, block_slots: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the rows that have an adapter, and the slot of each."""
    owners = block_slots.repeat_interleave(len(block_rows) // max(1, len(block_slots)))
    kept = (block_rows < count) & (owners >= 0)
    return block_rows[kept].long(), owners[kept].long()


def norm(out: Tensor, x: Tensor, weight: Tensor, eps: float, offset: float) -> None:
    """Do `aril::rms_norm`."""
    wide = x.float()
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    out.copy_(wide * (weight.float() + offset))


def add_norm(out: Tensor, sums: Tensor, x: Tensor, y: Tensor, *how: Any) -> None:
    """Do `aril::add_norm`."""
    sums.copy_(x + y)
    norm(out, sums, *how)


def gate(out: Tensor, gates: Tensor, up: Tensor, skipped: int, tanh: bool) -> None:
    """Do `aril::gate`."""
    width = out.shape[1]
    own, other = gates[:, :width].float(), up[:, skipped : skipped + width].float()
    out.copy_((gelu(own, approximate="tanh") if tanh else silu(own)) * other)


def rotate(out: Tensor, x: Tensor, cos: Tensor, sin: Tensor) -> None:
    """Do `aril::rotate`."""
    half = x.shape[-1] // 2
    turned = torch.cat([-x[..., half:], x[..., :half]], -1)
    out.copy_(x.float() * cos.float()[:, None] + turned.float() * sin.float()[:, None])


def place(
    q_out: Tensor,
    rows: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    places: Tensor,
    cos: Tensor,
    sin: Tensor,
    q_weight: Tensor | None,
    k_weight: Tensor | None,
    *how: float,
) -> None:
    """Do `aril::place_heads`."""
    (_, heads, dim), kv_heads = q_out.shape, k_cache.shape[2]
    q, k, v = rows.unflatten(1, (-1, dim)).split([heads, kv_heads, kv_heads], 1)
    for weight, (eps, offset), own in ((q_weight, how[:2], q), (k_weight, how[2:], k)):
        if weight is not None:
            norm(own, own.clone(), weight, eps, offset)
    turned = torch.empty_like(k)
    rotate(q_out, q, cos, sin)
    rotate(turned, k, cos, sin)
    store(turned, v, k_cache, v_cache, places)


KERNELS: Final[dict[str, Callable[..., None]]] = {
    "store_kv": store,
    "paged_attention": attend,
    "merge_splits": lambda *_: None,
    "sgmv_shrink": shrink,
    "sgmv_expand": expand,
    "rms_norm": norm,
    "add_norm": add_norm,
    "gate": gate,
    "rotate": rotate,
    "place_heads": place,
}
