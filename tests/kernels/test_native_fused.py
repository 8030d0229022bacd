"""Fused native kernels: sum and norm, heads taken apart, gates side by side; each against fp64."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import rms_norm

from kernels import native
from tests.kernels.test_native_rows import DTYPES, SIZES, close, draw

if TYPE_CHECKING:
    from torch import Tensor

DIM = 18


@DTYPES
@SIZES
@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_sum_and_norm(rows: int, width: int, offset: float, dtype: torch.dtype) -> None:
    """The sum as torch rounds it, bit for bit, and the norm of what was rounded."""
    x, y = draw(2, rows, width, dtype=dtype)
    weight = draw(width, dtype=dtype, seed=2)
    out, sums = torch.full((2, rows, width), torch.nan, dtype=dtype)
    native.add_norm(out, sums, x, y, native.Norm(weight, 1e-5, offset))
    assert torch.equal(sums, x + y)
    close(out, rms_norm(sums.double(), (width,), weight.double() + offset, eps=1e-5))
    assert torch.equal(out, native.rms_norm(sums, weight, 1e-5, offset=offset))


def placed(
    rows: Tensor,
    places: Tensor,
    angles: Tensor,
    heads: int,
    kv_heads: int,
    norms: tuple[native.Norm | None, native.Norm | None] = (None, None),
) -> tuple[Tensor, Tensor, Tensor]:
    """Run the kernel into outputs of NaN: queries and caches of pages of two."""
    q = torch.full((len(rows), heads, DIM), torch.nan, dtype=rows.dtype)
    pages = len(rows) + 1
    k, v = torch.full((2, pages, 2, kv_heads, DIM), torch.nan, dtype=rows.dtype)
    cos, sin = angles
    native.place_heads_of(q, rows, k, v, places, cos, sin, q_norm=norms[0], k_norm=norms[1])
    return q, k.view(-1, kv_heads, DIM), v.view(-1, kv_heads, DIM)


@DTYPES
@pytest.mark.parametrize("rows", [1, 5, 300])
@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (6, 2), (5, 1)])
@pytest.mark.parametrize("normed", [False, True])
def test_heads(rows: int, heads: int, kv_heads: int, normed: bool, dtype: torch.dtype) -> None:
    """Rows that lie apart; one has no place, and nothing but the others' places is written."""
    columns = (heads + 2 * kv_heads) * DIM
    x = draw(rows, columns + 7, dtype=dtype)[:, 3 : 3 + columns]
    angles = draw(2, rows, DIM, dtype=dtype, seed=3)
    places = torch.randperm(2 * rows, generator=torch.Generator().manual_seed(1))[:rows]
    if rows > 1:
        places[rows // 2] = -1
    weights = draw(2, DIM, dtype=dtype, seed=4)
    norms = (native.Norm(weights[0], 1e-5), native.Norm(weights[1], 1e-3, 1.0))
    q, k, v = placed(x, places, angles, heads, kv_heads, norms if normed else (None, None))
    given = x.unflatten(1, (-1, DIM)).double()
    turned = given[:, : heads + kv_heads]
    if normed:
        turned = torch.cat(
            [
                rms_norm(part, (DIM,), norm.weight.double() + norm.offset, eps=norm.eps)
                for part, norm in zip(turned.split([heads, kv_heads], 1), norms, strict=True)
            ],
            1,
        )
    half = torch.cat([-turned[..., DIM // 2 :], turned[..., : DIM // 2]], -1)
    cos, sin = angles.double()[:, :, None]
    expected = turned * cos + half * sin
    close(q, expected[:, :heads])
    kept = places >= 0
    close(k[places[kept]], expected[kept, heads:])
    assert torch.equal(v[places[kept]].double(), given[kept, heads + kv_heads :])
    written = torch.zeros(len(k), dtype=torch.bool)
    written[places[kept]] = True
    assert k[~written].isnan().all()
    assert v[~written].isnan().all()


@DTYPES
@SIZES
@pytest.mark.parametrize("tanh", [False, True])
def test_gates_side_by_side(rows: int, width: int, tanh: bool, dtype: torch.dtype) -> None:
    """The same bits as by the gate of two tensors, from rows that lie apart."""
    both = 6 * draw(rows, 2 * width + 5, dtype=dtype)[:, : 2 * width]
    out = torch.full((rows, width), torch.nan, dtype=dtype)
    native.gate_halves(out, both, tanh=tanh)
    assert torch.equal(out, native.gate(both[:, :width], both[:, width:], tanh=tanh))


@given(rows=st.lists(st.integers(0, 399), min_size=1, max_size=5))
def test_a_row_has_its_own_bits(rows: list[int]) -> None:
    """Among four hundred in two threads, or a few in one: the same bits."""
    x, y = draw(2, 400, 6 * DIM, dtype=torch.float32)
    angles = draw(2, 400, DIM, dtype=torch.float32, seed=3)
    norm = native.Norm(torch.ones(6 * DIM), 1e-5)
    own = native.Norm(torch.ones(DIM), 1e-5)

    def run(some: Tensor) -> list[Tensor]:
        out, sums = torch.empty(2, len(some), 6 * DIM)
        native.add_norm(out, sums, x[some], y[some], norm)
        places = torch.arange(len(some))
        q, k, _ = placed(x[some], places, angles[:, some].contiguous(), 4, 1, (own, own))
        return [out, sums, q, k[: len(some)]]

    every = torch.arange(400)
    for alone, among in zip(run(torch.tensor(rows)), run(every), strict=True):
        assert torch.equal(alone, among[rows])
