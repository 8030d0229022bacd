"""Paged attention and the store into the paged cache."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from aril.kernels.attention.gather import AttentionPlan, attend, make_attention_plan
from aril.kernels.attention.invariant import InvariantPlan, attend_invariant, make_invariant_plan
from aril.kernels.attention.scores import Extras
from aril.kernels.attention.sight import FAR, Sight
from aril.kernels.backend import uses_native, uses_triton

if TYPE_CHECKING:
    from torch import Tensor

    from aril.kernels.attention.native import NativePlan
    from aril.kernels.attention.tiles import AttentionTiles

    HostPlan = AttentionPlan | InvariantPlan | NativePlan


def paged_attention(  # noqa: PLR0917 - the operands, in the order of the formula
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    block_table: Tensor,
    cu_q: Tensor,
    kv_lens: Tensor,
    *,
    scale: float,
    window: int | None = None,
    chunk: int | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
    invariant: bool = False,
    backend: str = "auto",
    plan: HostPlan | None = None,
    tiles: AttentionTiles | None = None,
) -> Tensor:
    """Causal attention of the new rows of several sequences over their paged keys and values.

    Semantics, for sequence i with queries q[cu_q[i] : cu_q[i+1]] and its keys and values K, V
    [kv_lens[i], kv_heads, d] read through block_table[i]:

        out = softmax(scale · q Kᵀ + mask) V

    where the queries are the last positions of the sequence, each sees itself and what came before
    it, and with a `window` only the last `window` positions, with a `chunk` only those of its own
    chunk of so many (Llama 4). The rows' own keys and values are already in the cache (`store_kv`).
    Query head n uses the kv head n // (heads / kv_heads).
    With a `softcap` c the scores become c · tanh(scale · q Kᵀ / c) before the mask (Gemma 2). With
    `sinks` [heads] each head has one logit more, that takes part in the softmax and has no value
    (GPT-OSS).

    Shapes: q [T, heads, d], caches [blocks, block_size, kv_heads, d], block_table int32
    [seqs, max_blocks] (entries past a sequence's end are not used), cu_q int32 [seqs + 1] from 0 to
    T, kv_lens int32 [seqs], at least the sequence's number of queries. Returns [T, heads, d].
    The caches hold finite numbers everywhere (allocate them with zeros): the torch path multiplies
    what it hides by 0.

    `invariant` gives a row the same bits alone, among others, and when a prefill computes it again.
    `backend` "auto" is Triton on CUDA, machine code on a CPU that can (`uses_native`), and torch
    elsewhere. `plan` (`make_host_plan`) saves the last two from reading the lengths at every layer;
    it must have been made of the same tables, sight, mode and backend. `tiles` overrides the choice
    of the Triton kernel, for benchmarks and tests.
    Raises `ValueError` with the shapes when they don't fit each other.
    """
    triton = uses_triton(backend, q.device)
    _check(q, k_cache, v_cache, block_table, cu_q, kv_lens)
    sight = Sight(window, chunk)
    if sight and (sight.reach < 1 or None not in sight):
        raise ValueError(f"one of window and chunk, positive: got {window} and {chunk}")
    if softcap is not None and not softcap > 0:
        raise ValueError(f"softcap must be positive, got {softcap}")
    if sinks is not None and (sinks.shape != q.shape[1:2] or sinks.device != q.device):
        raise ValueError(
            f"sinks must be [{q.shape[1]}] on {q.device}, got {list(sinks.shape)} on {sinks.device}"
        )
    extras = Extras(softcap, sinks)
    if triton:
        # Loading Triton takes half a second that a CPU service need not spend.
        from aril.kernels.attention.launch import DevicePlan, attend_triton  # noqa: PLC0415

        if q.stride(2) != 1:
            q = q.contiguous()
        out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
        there = DevicePlan(block_table, cu_q, kv_lens, k_cache.shape[1], sight, invariant)
        attend_triton(out, q, k_cache, v_cache, there, scale, extras, tiles)
        return out
    if plan is None:
        plan = make_host_plan(
            block_table,
            cu_q,
            kv_lens,
            block_size=k_cache.shape[1],
            sight=sight,
            invariant=invariant,
            backend=backend,
            dtype=q.dtype,
        )
    return _attend_on_host(
        q, k_cache, v_cache, plan, scale, extras, backend=backend, invariant=invariant
    )


def _attend_on_host(  # noqa: PLR0917 - the operands
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    plan: HostPlan,
    scale: float,
    extras: Extras,
    *,
    backend: str,
    invariant: bool,
) -> Tensor:
    if uses_native(backend, q.device, q.dtype):
        from aril.kernels.attention.native import NativePlan, attend_native  # noqa: PLC0415 - loads Numba

        if isinstance(plan, NativePlan) and plan.invariant is invariant:
            out = torch.empty(q.shape, dtype=q.dtype)
            attend_native(out, q, k_cache, v_cache, plan, scale, extras)
            return out
    elif isinstance(plan, InvariantPlan) and invariant:
        return attend_invariant(q, k_cache, v_cache, plan, scale, extras)
    elif isinstance(plan, AttentionPlan) and not invariant:
        return attend(q, k_cache, v_cache, plan, scale, extras)
    raise ValueError("the plan is of another backend or mode")


def make_host_plan(
    block_table: Tensor,
    cu_q: Tensor,
    kv_lens: Tensor,
    *,
    block_size: int,
    dtype: torch.dtype,
    sight: Sight = FAR,
    invariant: bool = False,
    backend: str = "auto",
) -> HostPlan:
    """Read a step's lengths on the host, once for all layers of one sight.

    For `paged_attention` of that type, mode and backend (which is not Triton): see there.
    """
    if uses_native(backend, cu_q.device, dtype):
        from aril.kernels.attention.native import make_native_plan  # noqa: PLC0415 - loads Numba

        return make_native_plan(
            block_table, cu_q, kv_lens, block_size=block_size, sight=sight, invariant=invariant
        )
    make = make_invariant_plan if invariant else make_attention_plan
    return make(block_table, cu_q, kv_lens, block_size=block_size, sight=sight)


def store_kv(
    k: Tensor,
    v: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    slot_mapping: Tensor,
    *,
    backend: str = "auto",
) -> None:
    """Write the rows' keys and values into the paged cache, in place.

    k, v [T, kv_heads, d]; caches [blocks, block_size, kv_heads, d]; slot_mapping int64 [T] holds
    block · block_size + offset for each row, -1 skips the row.
    Raises `ValueError` with the shapes when they don't fit each other.
    """
    triton = uses_triton(backend, k.device)
    fits = (
        k.shape == v.shape
        and k_cache.shape == v_cache.shape
        and k.shape[1:] == k_cache.shape[2:]
        and slot_mapping.shape == k.shape[:1]
    )
    if not fits or slot_mapping.dtype != torch.int64:
        raise ValueError(
            f"cannot store: k {list(k.shape)}, v {list(v.shape)}, caches {list(k_cache.shape)} and "
            f"{list(v_cache.shape)}, slot_mapping {list(slot_mapping.shape)} {slot_mapping.dtype}"
        )
    if not (k_cache.is_contiguous() and v_cache.is_contiguous()):
        raise ValueError("the caches must be contiguous")
    if triton:
        from aril.kernels.attention.launch import store_triton  # noqa: PLC0415 - as above

        store_triton(k, v, k_cache, v_cache, slot_mapping)
        return
    if uses_native(backend, k.device, k.dtype) and _is_plain(k, v, k_cache, v_cache):
        from aril.kernels.native import store_rows  # noqa: PLC0415 - loads Numba

        slot_mapping = slot_mapping.contiguous()
        if len(slot_mapping):
            if int(slot_mapping.max()) >= k_cache.shape[0] * k_cache.shape[1]:
                raise IndexError(f"place {int(slot_mapping.max())} of {list(k_cache.shape[:2])}")
            store_rows(k, v, k_cache, v_cache, slot_mapping)
            return
    keep = slot_mapping >= 0
    if not bool(keep.all()):
        k, v, slot_mapping = k[keep], v[keep], slot_mapping[keep]
    for rows, cache in ((k, k_cache), (v, v_cache)):
        cache.view(-1, *cache.shape[2:]).index_copy_(0, slot_mapping, rows)


def _is_plain(k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor) -> bool:
    """Whether machine code can store these: of one type, heads of adjacent features."""
    return (
        k.dtype is v.dtype is k_cache.dtype is v_cache.dtype
        and k.stride(2) == v.stride(2) == 1
        and k_cache.is_contiguous()
        and v_cache.is_contiguous()
    )


def _check(  # noqa: PLR0917 - the operands of `paged_attention`
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    block_table: Tensor,
    cu_q: Tensor,
    kv_lens: Tensor,
) -> None:
    seqs = kv_lens.shape[0]
    fits = (
        q.ndim == 3  # noqa: PLR2004 - rows, heads, features
        and k_cache.shape == v_cache.shape
        and k_cache.shape[3:] == q.shape[2:]
        and q.shape[1] % k_cache.shape[2] == 0
        and block_table.shape[:1] == kv_lens.shape
        and cu_q.shape == (seqs + 1,)
        and all(part.dtype == torch.int32 for part in (block_table, cu_q, kv_lens))
        and q.dtype == k_cache.dtype == v_cache.dtype
        and k_cache.is_contiguous()
        and v_cache.is_contiguous()
    )
    if not fits:
        raise ValueError(
            f"operands don't fit: q {list(q.shape)} {q.dtype}, caches {list(k_cache.shape)} "
            f"{k_cache.dtype} and {list(v_cache.shape)} {v_cache.dtype} (contiguous), block_table "
            f"{list(block_table.shape)}, cu_q {list(cu_q.shape)}, kv_lens {list(kv_lens.shape)} "
            "(int32)"
        )
