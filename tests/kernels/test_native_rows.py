"""Native kernels of rows: norm, rotation and gate against fp64, and each row by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import gelu, rms_norm, silu

from kernels import native

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])

# Sizes on both sides of a vector's width, and one that two threads share.
SIZES = pytest.mark.parametrize(("rows", "width"), [(1, 1), (3, 17), (5, 64), (700, 576)])


def draw(*shape: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    """Draw normal numbers of a type."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def close(result: Tensor, expected: Tensor) -> None:
    """Hold a result to one rounding of its type, and a few of float32."""
    eps = torch.finfo(result.dtype).eps
    bound = (eps + 2e-6) * expected.abs() + 2e-6 * (1 + expected.abs().max())
    assert bool(((result.double() - expected).abs() <= bound).all())


@DTYPES
@SIZES
@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_norm(rows: int, width: int, offset: float, dtype: torch.dtype) -> None:
    """RMSNorm by its formula."""
    x, weight = draw(rows, width, dtype=dtype), draw(width, dtype=dtype, seed=2)
    expected = rms_norm(x.double(), (width,), weight.double() + offset, eps=1e-5)
    close(native.rms_norm(x, weight, 1e-5, offset=offset), expected)


@DTYPES
@pytest.mark.parametrize("rows", [1, 5, 600])
def test_rotation(rows: int, dtype: torch.dtype) -> None:
    """Queries and keys of unlike numbers of heads, as slices of one tensor."""
    heads, kv_heads, dim = 4, 2, 34
    fused = draw(rows, (heads + 2 * kv_heads) * dim, dtype=dtype).view(rows, -1, dim)
    q, k = fused[:, :heads], fused[:, heads : heads + kv_heads]
    cos, sin = draw(2, rows, dim, dtype=dtype, seed=3)
    for before, after in zip((q, k), native.rotate(q, k, cos, sin), strict=True):
        x = before.double()
        turned = torch.cat([-x[..., dim // 2 :], x[..., : dim // 2]], -1)
        close(after, x * cos.double()[:, None] + turned * sin.double()[:, None])


@DTYPES
@SIZES
@pytest.mark.parametrize("tanh", [False, True])
def test_gate(rows: int, width: int, tanh: bool, dtype: torch.dtype) -> None:
    """SwiGLU and GEGLU over slices that lie side by side, far from 0 too."""
    both = 6 * draw(rows, 2 * width, dtype=dtype)
    gates, up = both[:, :width], both[:, width:]
    x = gates.double()
    expected = (gelu(x, approximate="tanh") if tanh else silu(x)) * up.double()
    close(native.gate(gates, up, tanh=tanh), expected)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_stays_in_its_row(value: float) -> None:
    """An adapter gone wrong is seen in its own row's numbers and in no other's."""
    x = draw(3, 20, dtype=torch.float32)
    x[1, 4] = value
    ones = torch.ones(3, 20)
    for result in (
        native.rms_norm(x, ones[0], 1e-5),
        native.gate(x, ones),
        native.rotate(x[:, None], x[:, None], ones, ones)[0].flatten(1),
    ):
        assert result.isfinite().all(1).tolist() == [True, False, True]


CALLS: dict[str, Callable[[Tensor], Tensor]] = {
    "norm": lambda x: native.rms_norm(x, torch.ones_like(x[0]), 1e-5),
    "gate": lambda x: native.gate(x, x),
    "rotation": lambda x: native.rotate(x[:, None], x[:, None], x, x)[1],
}


@pytest.mark.parametrize("name", CALLS)
@given(rows=st.lists(st.integers(0, 399), min_size=1, max_size=5))
def test_a_row_has_its_own_bits(name: str, rows: list[int]) -> None:
    """Among four hundred in two threads, or a few in one: the same bits."""
    x = draw(400, 130, dtype=torch.float32)
    assert torch.equal(CALLS[name](x[rows]), CALLS[name](x)[rows])
