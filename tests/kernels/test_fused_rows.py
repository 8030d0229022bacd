"""Operations of rows by each backend: norm, sum and norm, gate; against fp64, row by row.

Integers are exact: a row of ±c has the norm ±1, and a large gate is its own logistic product.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch.nn.functional import gelu, rms_norm, silu

from aril.kernels.fused import FusedKernels, fused_kernels
from aril.kernels.norm import Norm
from tests.support.device import device_of
from tests.support.fused import BACKENDS, DTYPES, close, draw, kernels_of, many

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

# Sizes on both sides of a vector's width and of a program's, and one that two threads share.
SIZES = pytest.mark.parametrize(
    ("rows", "width"), [(1, 1), (3, 17), (5, 64), (2, 1100), (700, 576)]
)


@BACKENDS
@DTYPES
@SIZES
@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_norm(rows: int, width: int, offset: float, dtype: torch.dtype, backend: str) -> None:
    """RMSNorm by its formula."""
    x = draw(many(backend, rows), width, dtype=dtype, backend=backend)
    weight = draw(width, dtype=dtype, backend=backend, seed=2)
    expected = rms_norm(x.double(), (width,), weight.double() + offset, eps=1e-5)
    close(kernels_of(backend).rms_norm(x, weight, 1e-5, offset=offset), expected)


@pytest.mark.usefixtures("rounds_to_nearest")
@BACKENDS
@DTYPES
@SIZES
@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_sum_and_norm(
    rows: int, width: int, offset: float, dtype: torch.dtype, backend: str
) -> None:
    """The sum as torch rounds it, bit for bit, and the norm of what was rounded."""
    kernels = kernels_of(backend)
    x, y = draw(2, many(backend, rows), width, dtype=dtype, backend=backend)
    weight = draw(width, dtype=dtype, backend=backend, seed=2)
    out, sums = torch.full_like(x, torch.nan), torch.full_like(x, torch.nan)
    kernels.add_norm(out, sums, x, y, Norm(weight, 1e-5, offset))
    assert torch.equal(sums, x + y)
    close(out, rms_norm(sums.double(), (width,), weight.double() + offset, eps=1e-5))
    assert torch.equal(out, kernels.rms_norm(sums, weight, 1e-5, offset=offset))


@BACKENDS
@DTYPES
@SIZES
@pytest.mark.parametrize("tanh", [False, True])
def test_gate(rows: int, width: int, tanh: bool, dtype: torch.dtype, backend: str) -> None:
    """SwiGLU and GEGLU of halves that lie side by side, in rows that lie apart; far from 0 too."""
    kernels, rows = kernels_of(backend), many(backend, rows)
    both = 6 * draw(rows, 2 * width + 5, dtype=dtype, backend=backend)[:, : 2 * width]
    gates, up = both[:, :width], both[:, width:]
    x = gates.double()
    expected = (gelu(x, approximate="tanh") if tanh else silu(x)) * up.double()
    apart = kernels.gate(gates, up, tanh=tanh)
    close(apart, expected)
    out = torch.full_like(apart, torch.nan)
    kernels.gate_halves(out, both, tanh=tanh)
    assert torch.equal(out, apart)


@BACKENDS
@DTYPES
def test_whole_numbers_are_exact(dtype: torch.dtype, backend: str) -> None:
    """Where the result is whole, not a bit is lost."""
    kernels, device = kernels_of(backend), device_of(backend)
    signs = draw(4, 64, dtype=dtype, backend=backend).sign()
    weight = torch.arange(-32, 32, device=device).to(dtype)
    out, sums = torch.empty_like(signs), torch.empty_like(signs)
    with np.errstate(divide="ignore", invalid="ignore"):  # beside the rows, where a tile is larger
        kernels.add_norm(out, sums, 5 * signs, 3 * signs, Norm(weight, 0.0, 1.0))
    assert torch.equal(out, signs * (weight + 1))
    both = torch.cat([torch.full_like(signs, 40.0), signs * weight], 1)
    kernels.gate_halves(out, both)
    assert torch.equal(out, 40 * signs * weight)


@BACKENDS
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_stays_in_its_row(value: float, backend: str) -> None:
    """An adapter gone wrong is seen in its own row's numbers and in no other's."""
    kernels = kernels_of(backend)
    x = draw(3, 20, dtype=torch.float32, backend=backend)
    x[1, 4] = value
    ones = torch.ones_like(x)
    with np.errstate(all="ignore"):
        for result in (
            kernels.rms_norm(x, ones[0], 1e-5),
            kernels.gate(x, ones),
            kernels.rotate(x[:, None], x[:, None], ones, ones)[0].flatten(1),
        ):
            assert result.isfinite().all(1).tolist() == [True, False, True]


CALLS: dict[str, Callable[[FusedKernels, Tensor], Tensor]] = {
    "norm": lambda kernels, x: kernels.rms_norm(x, torch.ones_like(x[0]), 1e-5),
    "gate": lambda kernels, x: kernels.gate(x, x),
    "rotation": lambda kernels, x: kernels.rotate(x[:, None], x[:, None], x, x)[1],
}


@BACKENDS
@DTYPES
@pytest.mark.parametrize("name", CALLS)
def test_a_row_has_its_own_bits(name: str, dtype: torch.dtype, backend: str) -> None:
    """Among four hundred in two threads, or a few in any order: the same bits."""
    x = draw(many(backend, 400), 130, dtype=dtype, backend=backend)
    call, kernels = CALLS[name], kernels_of(backend)
    whole = call(kernels, x)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1)).to(x.device)
    for some in (order[:1], order[1:4], order):
        assert torch.equal(call(kernels, x[some]), whole[some])


def test_who_computes() -> None:
    """Machine code where it can; Triton where it is asked for, in types that it has; else torch."""
    device = torch.device("cpu")
    assert fused_kernels("auto", device, torch.float32) is kernels_of("native")
    assert fused_kernels("torch", device, torch.float32) is None
    assert fused_kernels("auto", device, torch.float64) is None
    assert fused_kernels("triton", device, torch.float64) is None
    assert fused_kernels("auto", torch.device("meta"), torch.float32) is None
    with pytest.raises(ValueError, match="backend must be one of"):
        fused_kernels("cuda", device, torch.float32)
