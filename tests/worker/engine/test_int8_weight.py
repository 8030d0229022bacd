"""Weights in eight bits: exact integers, the rounding bound, rows of their own, and refusals."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch

from aril.kernels.native import quantize_rows
from aril.worker.engine import int8_weight
from aril.worker.engine.attention import UnsupportedModelError
from aril.worker.engine.block_products import BLOCK_ROWS, ROW_COUNTS
from aril.worker.engine.config import EngineConfig
from aril.worker.engine.int8_weight import INTEGER_SUMS, Int8Weight, refuse_where_no_int8
from aril.worker.engine.row_classes import alike_row_counts
from tests.support.int8 import needs_int8

if TYPE_CHECKING:
    from torch import Tensor

CONFIG = EngineConfig(max_rows=1, max_step_tokens=1, slots=1, max_rank=1, kv_tokens=16)
ABLE = dict.fromkeys(INTEGER_SUMS, True)
SHAPES = pytest.mark.parametrize("shape", [(1, 1), (40, 65), (192, 576), (96, 1536)])
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])


def draw(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """Draw normal numbers of a type."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def factors(width: int) -> Tensor:
    """Draw what columns are multiplied by, far apart."""
    return 2.0 ** (draw(width, seed=9) * 2)


@needs_int8
@SHAPES
@pytest.mark.parametrize("rows", [1, 3, 40])
def test_sums_are_exact(shape: tuple[int, int], rows: int) -> None:
    """Of the largest bytes too, where sums in 16 bits would end; rounded to float32 at the end."""
    out, width = shape
    weight, x = draw(out, width), draw(rows, width, seed=1)
    weight[0], x[0] = 1.0, 1.0  # the largest sum that there is
    product = Int8Weight(weight, None, torch.ones(width))
    steps, scales = quantize_rows(x, torch.ones(width))
    weight_scale = weight.abs().amax(1).double() / 127
    integers = (steps.double() - 128) @ (weight.double() / weight_scale[:, None]).round().T
    expected = integers * weight_scale * scales.double()[:, None]
    bound = 1e-6 * expected.abs() + 1e-30
    assert bool(((product(x).double() - expected).abs() <= bound).all())


@needs_int8
@DTYPES
@SHAPES
def test_the_dense_weight_is_the_one_in_force(shape: tuple[int, int], dtype: torch.dtype) -> None:
    """It is half a step from the stored one, and rows times it are the product up to theirs."""
    out, width = shape
    weight, bias, x = draw(out, width, dtype=dtype), draw(out, dtype=dtype, seed=2), draw(5, width)
    smooth = factors(width)
    product = Int8Weight(weight, bias, smooth)
    dense = product.dense()
    assert dense.dtype is dtype
    step = (weight.double() / smooth).abs().amax(1, keepdim=True) / 127 * smooth
    eps = torch.finfo(dtype).eps
    error = (dense.double() - weight.double()).abs()
    assert bool((error <= 0.5001 * step + eps * weight.double().abs() + 1e-12).all())
    x = x.to(dtype)
    _, scales = quantize_rows(x, smooth)
    expected = x.double() @ dense.double().T + bias.double()
    # Each factor's product is off by half a step of its row, times the weight that it meets.
    rows = 0.5001 * scales.double()[:, None] * (dense.double() / smooth).abs().sum(1)
    rounded = eps * (expected.abs() + x.double().abs() @ dense.double().abs().T) + 1e-6
    assert bool(((product(x).double() - expected).abs() <= rows + rounded).all())


@needs_int8
def test_smoothing_helps_where_columns_are_large() -> None:
    """With one column a hundred times the others': many times closer to the exact product."""
    weight, x = draw(64, 128), draw(9, 128, seed=1)
    x[:, 5] *= 100
    smooth = torch.ones(128)
    smooth[5] = 0.1
    expected = x.double() @ weight.double().T
    plain, smoothed = (
        float((Int8Weight(weight, None, each)(x).double() - expected).square().mean())
        for each in (torch.ones(128), smooth)
    )
    assert smoothed < plain / 20


@needs_int8
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_in_its_row(bad: float) -> None:
    """A row that is spoilt is spoilt whole, and no other."""
    x = draw(2, 3, 20)
    x[1, 0, 4] = bad
    y = Int8Weight(draw(8, 20), None, torch.ones(20))(x)
    assert y.isnan().all(-1).tolist() == [[False] * 3, [True, False, False]]
    assert y[0].isfinite().all()


@needs_int8
@DTYPES
@pytest.mark.parametrize("shape", [(192, 576), (40, 1536)])
def test_a_row_has_the_same_bits_in_any_number(shape: tuple[int, int], dtype: torch.dtype) -> None:
    """Sums are exact, and all row counts round alike: the search finds no second class."""
    weight, smooth = draw(*shape, dtype=dtype), factors(shape[1])

    def make(weight: Tensor) -> Int8Weight:
        return Int8Weight(weight, None, smooth)

    asked = tuple(count for count in ROW_COUNTS if count <= 64)
    assert alike_row_counts(make, shape, dtype, asked, integers=True) == asked
    product, x = make(weight), draw(70, shape[1], dtype=dtype, seed=1)
    whole = product(x)
    for first, last in ((0, 1), (7, 9), (20, 41), (69, 70)):
        assert torch.equal(product(x[first:last]), whole[first:last])


@needs_int8
def test_the_search_sees_another_rounding() -> None:
    """A product that scales in another order for some row counts is not taken for the same."""
    shape = 24, 1040

    def make(weight: Tensor) -> object:
        product = Int8Weight(weight, None, torch.ones(shape[1]))

        def multiply(x: Tensor) -> Tensor:
            y = product(x)
            return y if len(x) < 40 else y / 3 * 3

        return multiply

    found = alike_row_counts(make, shape, torch.float32, (8, 16, 48, 64), integers=True)  # type: ignore[arg-type]
    assert found == (8, BLOCK_ROWS)


@needs_int8
def test_what_has_no_product_is_refused() -> None:
    """No gradient, no rows, and no more columns than 32 bits hold sums of."""
    product = Int8Weight(draw(8, 20), None, torch.ones(20))
    with pytest.raises(ValueError, match="no gradients"):
        product(draw(2, 20).requires_grad_())
    assert product(draw(0, 20)).shape == (0, 8)
    wide = 2**31 // (255 * 127) + 1
    with pytest.raises(UnsupportedModelError, match=f"columns, not {wide}"):
        Int8Weight(torch.ones(1, wide), None, torch.ones(wide))


@needs_int8
def test_sums_that_saturate_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As older instructions' do: two products of bytes are more than 16 bits hold."""
    real = int8_weight._multiply

    def saturating(rows: Tensor, weight: Tensor, scales: Tensor, zeros: Tensor) -> Tensor:
        """Lose what a pair of large bytes has above 32,767."""
        y = real(rows, weight, scales, zeros)
        return y - scales * (255 * 127 * 2 - 32_767) * (rows == 255).any(1, keepdim=True)

    monkeypatch.setattr(int8_weight, "_multiply", saturating)
    with pytest.raises(UnsupportedModelError, match="exact sums of bytes"):
        Int8Weight(draw(8, 20), None, torch.ones(20))


@pytest.mark.parametrize("name", INTEGER_SUMS)
def test_either_instruction_is_enough(name: str) -> None:
    """A processor that has it is taken, if torch has oneDNN."""
    refuse_where_no_int8(CONFIG, {name: True})


@pytest.mark.parametrize(
    ("config", "capabilities", "why"),
    [
        (replace(CONFIG, device="cuda"), ABLE, "a CPU, not cuda"),
        (replace(CONFIG, backend="triton"), ABLE, "not Triton"),
        (CONFIG, {"avx512_f": True, "avx512_vnni": False}, "avx512_vnni or avx_vnni"),
        (CONFIG, {}, "avx512_vnni or avx_vnni"),
    ],
)
def test_where_there_is_none(config: EngineConfig, capabilities: dict[str, bool], why: str) -> None:
    """Each in one line that names the setting."""
    with pytest.raises(UnsupportedModelError, match=f"^ARIL_WEIGHTS=int8 needs .*{why}"):
        refuse_where_no_int8(config, capabilities)


def test_torch_tells_of_these_instructions() -> None:
    """A capability under another name would pass for one that is missing."""
    capabilities = torch.cpu.get_capabilities()
    if capabilities["architecture"] == "x86_64":
        assert set(INTEGER_SUMS) <= capabilities.keys()
