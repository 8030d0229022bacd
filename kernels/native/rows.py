"""What a layer does to each row between its products: norm, rotation, gate, and the cache."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numba import carray

from aril.kernels.native.kernel import Kernel, record
from aril.kernels.native.scalars import compiled, elements, exp, int64s, load, store, take, untyped

if TYPE_CHECKING:
    from torch import Tensor

_NORM = record("out", "x", "weight", "width", "eps", "offset", real=("eps", "offset"))
_ROTATE = record(
    *("q_out", "k_out", "q", "k", "cos", "sin", "heads", "kv_heads", "dim"),
    *("q_row", "q_head", "k_row", "k_head"),
)
_GATE = record("out", "gate", "up", "width", "gate_row", "up_row", "tanh")
_STORE = record(
    *("k_cache", "v_cache", "k", "v", "places", "heads", "dim"),
    *("k_row", "k_head", "v_row", "v_head"),
)


def rms_norm(x: Tensor, weight: Tensor, eps: float, *, offset: float = 0.0) -> Tensor:
    """Return x / √(mean(x²) + eps) · (weight + offset), in fp32 and rounded once.

    x [..., n] contiguous, weight [n], of one type. RMSNorm: arXiv 1910.07467.
    """
    out = torch.empty_like(x)
    width = x.shape[-1]
    _NORM_ROWS(
        x.dtype,
        x.numel() // width,
        2 * x.numel(),
        out.data_ptr(),
        x.data_ptr(),
        weight.data_ptr(),
        width,
        eps,
        offset,
    )
    return out


def rotate(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """Rotate heads by their rows' angles: x · cos + [-x₂, x₁] · sin, x₁ and x₂ being x's halves.

    q [T, heads, d] and k [T, kv_heads, d] with adjacent features; cos and sin [T, d] contiguous,
    all of one type. Returns new ones, contiguous. RoPE: arXiv 2104.09864.
    """
    q_out, k_out = (torch.empty(x.shape, dtype=x.dtype) for x in (q, k))
    _ROTATE_ROWS(
        q.dtype,
        len(q),
        q.numel() + k.numel(),
        q_out.data_ptr(),
        k_out.data_ptr(),
        q.data_ptr(),
        k.data_ptr(),
        cos.data_ptr(),
        sin.data_ptr(),
        q.shape[1],
        k.shape[1],
        q.shape[2],
        q.stride(0),
        q.stride(1),
        k.stride(0),
        k.stride(1),
    )
    return q_out, k_out


def gate(gates: Tensor, up: Tensor, *, tanh: bool = False) -> Tensor:
    """Return silu(gates) · up, or with `tanh` gelu(gates) · up by its approximation of that name.

    gates and up [T, n] of one type with adjacent columns. SwiGLU, GEGLU: arXiv 2002.05202.
    """
    rows, width = gates.shape
    out = torch.empty(rows, width, dtype=gates.dtype)
    GATE_ROWS(
        gates.dtype,
        rows,
        8 * rows * width,
        out.data_ptr(),
        gates.data_ptr(),
        up.data_ptr(),
        width,
        gates.stride(0),
        up.stride(0),
        int(tanh),
    )
    return out


def store_rows(
    k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor, slot_mapping: Tensor
) -> None:
    """Write keys and values into the paged cache; see `aril.kernels.attention.store_kv`."""
    _STORE_ROWS(
        k.dtype,
        len(k),
        2 * k.numel(),
        k_cache.data_ptr(),
        v_cache.data_ptr(),
        k.data_ptr(),
        v.data_ptr(),
        slot_mapping.data_ptr(),
        k.shape[1],
        k.shape[2],
        k.stride(0),
        k.stride(1),
        v.stride(0),
        v.stride(1),
    )


def _norm(pointer: Any) -> None:
    o = carray(untyped(pointer), (1,), _NORM)[0]
    out, x, weight = elements(o.out, pointer), elements(o.x, pointer), elements(o.weight, pointer)
    width, offset = o.width, np.float32(o.offset)
    while True:
        row = take(pointer)
        if row >= o.tasks:
            return
        base = row * width
        inverse = np.float32(1) / root_of_mean(x, base, width, o.eps)
        for i in range(width):
            factor = load(weight, i) + offset
            store(out, base + i, load(x, base + i) * inverse * factor)


@compiled
def root_of_mean(x: Any, base: Any, width: Any, eps: Any) -> Any:
    """Return √(mean(x²) + eps) of the numbers from base on."""
    total = np.float32(0)
    for i in range(base, base + width):
        total += load(x, i) * load(x, i)
    return np.sqrt(total / np.float32(width) + np.float32(eps))


def _rotate(pointer: Any) -> None:
    o = carray(untyped(pointer), (1,), _ROTATE)[0]
    q, k = elements(o.q, pointer), elements(o.k, pointer)
    q_out, k_out = elements(o.q_out, pointer), elements(o.k_out, pointer)
    cos, sin = elements(o.cos, pointer), elements(o.sin, pointer)
    while True:
        row = take(pointer)
        if row >= o.tasks:
            return
        at = row * o.dim
        for h in range(o.heads):
            place = (row * o.heads + h) * o.dim
            rotate_head(q_out, place, q, row * o.q_row + h * o.q_head, cos, sin, at, o.dim)
        for h in range(o.kv_heads):
            place = (row * o.kv_heads + h) * o.dim
            rotate_head(k_out, place, k, row * o.k_row + h * o.k_head, cos, sin, at, o.dim)


@compiled
def rotate_head(
    out: Any, place: Any, x: Any, base: Any, cos: Any, sin: Any, at: Any, dim: Any
) -> None:
    """Rotate one head of x into out by the angles of its row, which begin at `at`."""
    half = dim // 2
    for i in range(half):
        a, b = load(x, base + i), load(x, base + half + i)
        store(out, place + i, a * load(cos, at + i) - b * load(sin, at + i))
        other = at + half + i
        store(out, place + half + i, b * load(cos, other) + a * load(sin, other))


def _gate(pointer: Any) -> None:
    o = carray(untyped(pointer), (1,), _GATE)[0]
    out, gates, up = elements(o.out, pointer), elements(o.gate, pointer), elements(o.up, pointer)
    while True:
        row = take(pointer)
        if row >= o.tasks:
            return
        base, g, u = row * o.width, row * o.gate_row, row * o.up_row
        if o.tanh == 0:
            for i in range(o.width):
                x = load(gates, g + i)
                store(out, base + i, x * _sigmoid(x) * load(up, u + i))
        else:
            for i in range(o.width):
                x = load(gates, g + i)
                # (1 + tanh(z)) / 2 is the logistic function of 2 z
                z = np.float32(1.5957691216) * (x + np.float32(0.044715) * x * x * x)
                store(out, base + i, x * _sigmoid(z) * load(up, u + i))


@compiled
def _sigmoid(x: Any) -> Any:
    e = exp(-abs(x))
    return (np.float32(1) if x >= 0 else e) / (np.float32(1) + e)


def _store(pointer: Any) -> None:
    o = carray(untyped(pointer), (1,), _STORE)[0]
    k, v = elements(o.k, pointer), elements(o.v, pointer)
    k_cache, v_cache = elements(o.k_cache, pointer), elements(o.v_cache, pointer)
    places = int64s(o.places)
    while True:
        row = take(pointer)
        if row >= o.tasks:
            return
        if places[row] < 0:
            continue
        for h in range(o.heads):
            base = (places[row] * o.heads + h) * o.dim
            for d in range(o.dim):
                k_cache[base + d] = k[row * o.k_row + h * o.k_head + d]
                v_cache[base + d] = v[row * o.v_row + h * o.v_head + d]


_NORM_ROWS = Kernel(_norm, _NORM)
_ROTATE_ROWS = Kernel(_rotate, _ROTATE)
GATE_ROWS = Kernel(_gate, _GATE)
_STORE_ROWS = Kernel(_store, _STORE)
