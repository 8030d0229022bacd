"""Rows in eight bits and back: within half a step, each row by itself, and what is not finite."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from aril.kernels.native import quantize_rows, widen_rows

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
SIZES = pytest.mark.parametrize(("rows", "width"), [(1, 1), (3, 17), (700, 576)])


def draw(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    """Draw normal numbers of a type."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@DTYPES
@SIZES
def test_each_number_is_half_a_step_away(rows: int, width: int, dtype: torch.dtype) -> None:
    """Of a slice too; a row's largest is 127 steps, and zero is zero."""
    x = draw(rows, width + 3, dtype=dtype)[:, :width]
    x[:, width // 2] *= 30
    factors = draw(width, seed=1).abs() + 0.1
    steps, scales = quantize_rows(x, factors)
    expected = x.double() * factors
    assert steps.dtype is torch.uint8
    found = (steps.double() - 128) * scales.double()[:, None]
    bound = (0.5 + 1e-4) * scales.double()[:, None]
    assert bool(((found - expected).abs() <= bound).all())
    assert (steps.int() - 128).abs().amax(1).tolist() == [127] * rows


@pytest.mark.parametrize("size", [0.0, 1e-38, 1e-41, 1e-36, 1e-30, 1e30, 9e35])
def test_rows_of_any_size(size: float) -> None:
    """Nothing overflows; what is far below all numbers of a model counts as zero."""
    x = torch.tensor([[1.0, -0.5, 0.25, 0.0]]) * size
    steps, scales = quantize_rows(x, torch.ones(4))
    found = (steps.double() - 128) * scales.double()[:, None]
    assert float((found - x.double()).abs().max()) <= max(size / 250, 1e-36)


@DTYPES
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e37])
def test_what_is_not_finite_stays_in_its_row(bad: float, dtype: torch.dtype) -> None:
    """The scale of its row is NaN, and so is all that comes of the row."""
    x = draw(3, 20, dtype=dtype)
    x[1, 4] = bad
    steps, scales = quantize_rows(x, torch.ones(20))
    assert scales.isnan().tolist() == [False, True, False]
    y = widen_rows(steps.float(), scales, None, dtype)
    assert y.isfinite().all(1).tolist() == [True, False, True]
    assert y[1].isnan().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("biased", [False, True])
@SIZES
def test_widening_is_rounded_once(rows: int, width: int, biased: bool, dtype: torch.dtype) -> None:
    """Sums times scales, plus a bias, as fp64 has them."""
    sums, scales = draw(rows, width, seed=2), draw(rows, seed=3)
    bias = draw(width, dtype=dtype, seed=4) if biased else None
    expected = sums.double() * scales.double()[:, None] + (0 if bias is None else bias.double())
    found = widen_rows(sums, scales, bias, dtype)
    assert found.dtype is dtype
    eps = torch.finfo(dtype).eps
    assert bool(((found.double() - expected).abs() <= eps * expected.abs() + 2e-6).all())


@given(rows=st.lists(st.integers(0, 399), min_size=1, max_size=5))
def test_a_row_has_its_own_bits(rows: list[int]) -> None:
    """Among four hundred or a few: the same bits."""
    x, factors = draw(400, 500), draw(500, seed=1).abs()
    steps, scales = quantize_rows(x, factors)
    own_steps, own_scales = quantize_rows(x[rows], factors)
    assert torch.equal(own_steps, steps[rows])
    assert torch.equal(own_scales, scales[rows])
