"""`sgmv_`: many LoRA adapters in one batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from aril.kernels.backend import uses_native, uses_triton
from aril.kernels.sgmv.group import GroupShape, LoraPair
from aril.kernels.sgmv.packed import TorchProducts, add_segments_, pack
from aril.kernels.sgmv.tiles import choose_tiles

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from aril.kernels.sgmv.gains import Gains
    from aril.kernels.sgmv.packed import PackedAdapter
    from aril.kernels.sgmv.plan import SgmvPlan
    from aril.kernels.sgmv.tiles import Tiles


def sgmv_(  # noqa: PLR0917 - the operands, in the order of the formula
    y: Tensor,
    x: Tensor,
    a: Tensor,
    b: Sequence[Tensor],
    ranks: Tensor,
    scales: Tensor,
    plan: SgmvPlan,
    *,
    gains: Gains | None = None,
    backend: str = "auto",
    tiles: Tiles | None = None,
) -> None:
    """Add each row's LoRA product to y, in place.

    Semantics, for row i with slot s = row_slots[i] ≥ 0 and each slice j of the fused group:

        r = ranks[s, j]
        a_j, b_j = a[s, j * r_max : j * r_max + r], b[j][s, :, :r]
        y[i, slice j] += scales[s, j] * f[i] * (x[i] @ a_j.T) @ b_j.T

    with f = plan.row_scales, or 1 for none. Where gains.present[s, j] is set (DoRA, arXiv
    2402.09353), with δ for what is added above and β = gains.bias[slice j], or 0 for none:

        y[i, slice j] = gains.values[s, slice j] * ((y[i, slice j] - β) + δ) + β

    Rows with slot -1 and slices of rank 0 are neither read nor written, with or without gains; nor
    is any weight past its live rank used (Triton loads ranks in whole pieces of 8), or a
    gain that is not present read. Rows without gains get the bits that they would get without the
    argument.

    Shapes: y [T, sum(widths)], x [T, h], a [slots, slices · r_max, h],
    b[j] [slots, width_j, r_max],
    ranks int32 [slots, slices], scales float32 [slots, slices], gains as in `Gains`. x, a and b
    have one floating type; y may have another. x and y may have any strides, all else is
    contiguous.

    `backend` "auto" is Triton on CUDA, machine code on a CPU that can (`uses_native`), for operands
    of one type, and torch elsewhere. The last two pack the slots that have rows in each call: that
    is for tests and comparisons, `make_slot_weights` does it once. `tiles` overrides
    the plan table, for benchmarks and tests. Sums run in fp32 (fp64 for fp64 operands), y is
    rounded once by Triton; torch rounds δ to x's type before. y comes in rounded to its own type: a
    gain scales that rounding too.

    Raises `ValueError` with the shapes when the operands don't fit each other.
    """
    triton = uses_triton(backend, x.device)
    native = not triton and _is_native(backend, y, x)
    _check_shapes(y, x, a, b, ranks, scales, plan)
    if gains is not None:
        gains.check(plan.slots, [part.shape[1] for part in b])
    if not triton:
        packed = _packed(a, b, ranks, scales, plan, gains, torch.float32 if native else a.dtype)
        if native:
            _add_native_(y, x, packed, plan)
        else:
            slots = [each and TorchProducts(each, y.dtype) for each in packed]
            add_segments_(y, x, slots, plan)
        return
    # Loading Triton takes half a second that a CPU service need not spend.
    from aril.kernels.sgmv.launch import sgmv_triton_  # noqa: PLC0415

    if x.dtype is torch.float64:
        raise ValueError("the Triton kernels take fp32, fp16 and bf16, got float64")
    if tiles is None:
        tiles = choose_tiles(
            plan.mode,
            rows=plan.rows,
            in_features=x.shape[1],
            max_rank=b[0].shape[2],
            adapters=plan.adapters,
        )
    sgmv_triton_(y, x, a, b, ranks, scales, plan, tiles, gains)


def _check_shapes(  # noqa: PLR0917 - the operands of `sgmv_`
    y: Tensor,
    x: Tensor,
    a: Tensor,
    b: Sequence[Tensor],
    ranks: Tensor,
    scales: Tensor,
    plan: SgmvPlan,
) -> None:
    slots, slices = plan.slots, len(b)
    max_rank = b[0].shape[-1] if b else 0
    fits = (
        slices > 0
        and x.ndim == 2  # noqa: PLR2004 - a matrix
        and x.shape[0] == plan.rows
        and y.shape == (plan.rows, sum(part.shape[1] for part in b))
        and a.shape == (slots, slices * max_rank, x.shape[1])
        and all(part.shape == (slots, part.shape[1], max_rank) for part in b)
        and ranks.shape == scales.shape == (slots, slices)
    )
    if not fits:
        raise ValueError(
            f"operands don't fit a plan of {plan.rows} rows and {slots} slots: y {list(y.shape)}, "
            f"x {list(x.shape)}, a {list(a.shape)}, b {[list(part.shape) for part in b]}, "
            f"ranks {list(ranks.shape)}, scales {list(scales.shape)}"
        )
    if any(part.dtype != x.dtype for part in (a, *b)) or not x.dtype.is_floating_point:
        raise ValueError(
            f"x, a and b must have one floating type, got {x.dtype}, {a.dtype}, "
            f"{[part.dtype for part in b]}"
        )
    if ranks.dtype != torch.int32 or scales.dtype != torch.float32:
        raise ValueError(
            f"ranks must be int32 and scales float32, got {ranks.dtype}, {scales.dtype}"
        )
    if not all(part.is_contiguous() for part in (a, *b, ranks, scales)):
        raise ValueError("a, b, ranks and scales must be contiguous")


def _is_native(backend: str, y: Tensor, x: Tensor) -> bool:
    """Whether machine code takes these: of one type, rows of adjacent columns, no gradients."""
    plain = y.dtype is x.dtype and y.stride(-1) == 1 and not (x.requires_grad or y.requires_grad)
    return uses_native(backend, x.device, x.dtype) and plain


def _add_native_(
    y: Tensor, x: Tensor, packed: Sequence[PackedAdapter | None], plan: SgmvPlan
) -> None:
    from aril.kernels.sgmv.native_weights import NativeAdapters  # noqa: PLC0415 - loads Numba

    adapters = NativeAdapters(len(packed), x.dtype)
    for slot, adapter in enumerate(packed):
        adapters.put(slot, adapter)
    adapters.add_(y, x, plan)


def _packed(  # noqa: PLR0917 - the operands of `sgmv_`
    a: Tensor,
    b: Sequence[Tensor],
    ranks: Tensor,
    scales: Tensor,
    plan: SgmvPlan,
    gains: Gains | None,
    dtype: torch.dtype,
) -> list[PackedAdapter | None]:
    """Take the slots that have rows out of the stack, as a CPU's stores hold them."""
    shape = GroupShape(a.shape[2], tuple(part.shape[1] for part in b), b[0].shape[2])
    bias = None if gains is None else gains.bias
    slots: list[PackedAdapter | None] = [None] * plan.slots
    for slot in {segment.slot for segment in plan.segments}:
        pairs = [_pair(slot, j, shape, a, b, ranks, scales, gains) for j in range(len(b))]
        slots[slot] = pack(pairs, shape, device=a.device, dtype=dtype, bias=bias)
    return slots


def _pair(  # noqa: PLR0917 - a place in the stack, and the operands of `sgmv_`
    slot: int,
    j: int,
    shape: GroupShape,
    a: Tensor,
    b: Sequence[Tensor],
    ranks: Tensor,
    scales: Tensor,
    gains: Gains | None,
) -> LoraPair | None:
    rank = int(ranks[slot, j])
    if not rank:
        return None
    first, start = j * shape.max_rank, shape.offsets[j]
    gain = None
    if gains is not None and gains.present[slot, j]:
        gain = gains.values[slot, start : start + shape.widths[j]]
    return LoraPair(
        a[slot, first : first + rank], b[j][slot, :, :rank], float(scales[slot, j]), gain
    )
