"""Heads by each backend: taken out of one product, normed, rotated and stored; against fp64."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch.nn.functional import rms_norm

from aril.kernels.norm import Norm
from tests.support.device import device_of
from tests.support.fused import BACKENDS, DTYPES, close, draw, kernels_of, many

if TYPE_CHECKING:
    from torch import Tensor

DIM = 18


def turned(x: Tensor, angles: Tensor) -> Tensor:
    """Rotate heads [T, heads, d] by cos and sin [2, T, d], as RoPE's formula has it."""
    dim = x.shape[-1]
    cos, sin = angles.to(x.dtype)[:, :, None]
    return x * cos + torch.cat([-x[..., dim // 2 :], x[..., : dim // 2]], -1) * sin


@BACKENDS
@DTYPES
@pytest.mark.parametrize("rows", [1, 5, 600])
@pytest.mark.parametrize("dim", [2, 34])
def test_rotation(rows: int, dim: int, dtype: torch.dtype, backend: str) -> None:
    """Queries and keys of unlike numbers of heads, as slices of one tensor."""
    heads, kv_heads, rows = 4, 3, many(backend, rows)
    fused = draw(rows, (heads + 2 * kv_heads) * dim, dtype=dtype, backend=backend)
    q, k = fused.view(rows, -1, dim)[:, : heads + kv_heads].split([heads, kv_heads], 1)
    angles = draw(2, rows, dim, dtype=dtype, backend=backend, seed=3)
    for before, after in zip((q, k), kernels_of(backend).rotate(q, k, *angles), strict=True):
        close(after, turned(before.double(), angles))


def placed(
    backend: str,
    rows: Tensor,
    places: Tensor,
    angles: Tensor,
    heads: tuple[int, int],
    norms: tuple[Norm | None, Norm | None] = (None, None),
) -> tuple[Tensor, Tensor, Tensor]:
    """Run the kernel into outputs of NaN: queries, and caches of pages of two."""
    dim, pages = angles.shape[-1], len(rows) + 1
    q = rows.new_full((len(rows), heads[0], dim), torch.nan)
    k, v = rows.new_full((2, pages, 2, heads[1], dim), torch.nan)
    cos, sin = angles
    kernels_of(backend).place_heads_of(q, rows, k, v, places, cos, sin, *norms)
    return q, k.flatten(0, 1), v.flatten(0, 1)


@BACKENDS
@DTYPES
@pytest.mark.parametrize("rows", [1, 5, 300])
@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (6, 2), (5, 1)])
@pytest.mark.parametrize("normed", [False, True])
def test_heads(
    rows: int, heads: int, kv_heads: int, normed: bool, dtype: torch.dtype, backend: str
) -> None:
    """Rows that lie apart; one has no place, and nothing but the others' places is written."""
    rows, columns = many(backend, rows), (heads + 2 * kv_heads) * DIM
    x = draw(rows, columns + 7, dtype=dtype, backend=backend)[:, 3 : 3 + columns]
    angles = draw(2, rows, DIM, dtype=dtype, backend=backend, seed=3)
    places = torch.randperm(2 * rows, generator=torch.Generator().manual_seed(1))[:rows]
    places = places.to(x.device)
    if rows > 1:
        places[rows // 2] = -1
    weights = draw(2, DIM, dtype=dtype, backend=backend, seed=4)
    norms = (Norm(weights[0], 1e-5), Norm(weights[1], 1e-3, 1.0))
    q, k, v = placed(
        backend, x, places, angles, (heads, kv_heads), norms if normed else (None, None)
    )
    given = x.unflatten(1, (-1, DIM)).double()
    before = given[:, : heads + kv_heads]
    if normed:
        before = torch.cat(
            [
                rms_norm(part, (DIM,), norm.weight.double() + norm.offset, eps=norm.eps)
                for part, norm in zip(before.split([heads, kv_heads], 1), norms, strict=True)
            ],
            1,
        )
    expected = turned(before, angles)
    close(q, expected[:, :heads])
    kept = places >= 0
    close(k[places[kept]], expected[kept, heads:])
    assert torch.equal(v[places[kept]].double(), given[kept, heads + kv_heads :])
    written = torch.zeros(len(k), dtype=torch.bool, device=k.device)
    written[places[kept]] = True
    assert k[~written].isnan().all()
    assert v[~written].isnan().all()


@BACKENDS
@DTYPES
@pytest.mark.parametrize(("heads", "kv_heads", "dim"), [(3, 1, 2), (8, 2, 64), (12, 12, 256)])
def test_quarter_turns_are_exact(
    heads: int, kv_heads: int, dim: int, dtype: torch.dtype, backend: str
) -> None:
    """Whole numbers by angles of 0 and 90 degrees, heads as wide as models have them."""
    device = device_of(backend)
    x = torch.arange(2 * (heads + 2 * kv_heads) * dim, device=device).view(2, -1) % 251 - 125
    cos = torch.tensor([[1], [0]], device=device).repeat(1, dim)
    angles = torch.stack([cos, 1 - cos])
    places = torch.tensor([3, 0], device=device)
    q, k, v = placed(backend, x.to(dtype), places, angles.to(dtype), (heads, kv_heads))
    whole = turned(x.unflatten(1, (-1, dim)), angles)
    assert torch.equal(q.long(), whole[:, :heads])
    assert torch.equal(k[places].long(), whole[:, heads : heads + kv_heads])
    assert torch.equal(v[places].long(), x.unflatten(1, (-1, dim))[:, heads + kv_heads :])


@pytest.mark.parametrize("place", [-1, 4, 1 << 40])
def test_a_device_skips_places_that_no_cache_has(place: int) -> None:
    """Nobody could raise there: like -1, and the rows beside it are stored."""
    x = draw(2, 4 * 4, dtype=torch.float32, backend="triton")
    angles = draw(2, 2, 4, dtype=torch.float32, backend="triton")
    q, k, v = (
        torch.full(shape, torch.nan, device=x.device) for shape in ((2, 2, 4), (4, 4), (4, 4))
    )
    places = torch.tensor([place, 1], device=x.device)
    caches = k.view(2, 2, 1, 4), v.view(2, 2, 1, 4)
    kernels_of("triton").place_heads_of(q, x, *caches, places, *angles)
    assert q.isfinite().all()
    for cache in (k, v):
        assert cache.isfinite().all(1).tolist() == [False, True, False, False]


@BACKENDS
@DTYPES
@pytest.mark.parametrize("normed", [False, True])
def test_a_row_has_its_own_bits(normed: bool, dtype: torch.dtype, backend: str) -> None:
    """Among four hundred in two threads, or a few in any order: the same bits."""
    count, heads = many(backend, 400), (4, 2)
    x = draw(count, sum((4, 2, 2)) * DIM, dtype=dtype, backend=backend)
    angles = draw(2, count, DIM, dtype=dtype, backend=backend, seed=3)
    norm = Norm(draw(DIM, dtype=dtype, backend=backend, seed=4), 1e-5)
    norms = (norm, norm) if normed else (None, None)

    def run(some: Tensor) -> list[Tensor]:
        places = torch.arange(len(some), device=x.device)
        q, k, _ = placed(backend, x[some], places, angles[:, some].contiguous(), heads, norms)
        return [q, k[: len(some)]]

    order = torch.randperm(count, generator=torch.Generator().manual_seed(1)).to(x.device)
    whole = run(torch.arange(count, device=x.device))
    for some in (order[:1], order[1:4], order):
        for alone, among in zip(run(some), whole, strict=True):
            assert torch.equal(alone, among[some])
