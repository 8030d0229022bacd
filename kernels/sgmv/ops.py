"""`sgmv_`: many LoRA adapters in one batch."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

import torch

from kernels.sgmv.segments import LiveSlice, LiveSlot, add_segments_
from kernels.sgmv.tiles import choose_tiles

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from kernels.sgmv.gains import Gains
    from kernels.sgmv.plan import SgmvPlan
    from kernels.sgmv.tiles import Tiles

BACKENDS = ("auto", "torch", "triton")


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
        y[i, slice j] += scales[s, j] * (x[i] @ a[s, j*r_max : j*r_max + r].T) @ b[j][s, :, :r].T

    and where gains.present[s, j] is set (DoRA, arXiv 2402.09353), with δ for what is added above
    and β = gains.bias[slice j], or 0 for none:

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

    `backend` "auto" is Triton on CUDA and torch elsewhere. `tiles` overrides the plan table, for
    benchmarks and tests. Sums run in fp32 (fp64 for fp64 operands), y is rounded once by Triton;
    torch rounds δ to x's type before. y comes in rounded to its own type: a gain scales that
    rounding too.

    Raises `ValueError` with the shapes when the operands don't fit each other.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    _check_shapes(y, x, a, b, ranks, scales, plan)
    if gains is not None:
        gains.check(plan.slots, [part.shape[1] for part in b])
    if backend == "torch" or (backend == "auto" and x.device.type != "cuda"):
        live = _live_views(a, b, ranks.tolist(), scales.tolist(), plan, gains)
        add_segments_(y, x, live, plan)
        return
    # Loading Triton takes half a second that a CPU service need not spend.
    from kernels.sgmv.launch import sgmv_triton_  # noqa: PLC0415

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


def _live_views(  # noqa: PLR0917 - the operands of `sgmv_`
    a: Tensor,
    b: Sequence[Tensor],
    ranks: list[list[int]],
    scales: list[list[float]],
    plan: SgmvPlan,
    gains: Gains | None,
) -> list[LiveSlot | None]:
    """View each used slot at its live ranks."""
    max_rank = b[0].shape[2]
    offsets = list(accumulate((part.shape[1] for part in b), initial=0))
    present = gains.present.tolist() if gains is not None else None
    live: list[LiveSlot | None] = [None] * plan.slots
    for slot, _, _ in plan.segments:
        columns = list(accumulate(ranks[slot], initial=0))
        slices = []
        for j, rank in enumerate(ranks[slot]):
            if not rank:
                continue
            outputs = slice(offsets[j], offsets[j + 1])
            part = LiveSlice(
                slice(columns[j], columns[j + 1]),
                outputs,
                b[j][slot, :, :rank].T,
                scales[slot][j],
            )
            if gains is not None and present is not None and present[slot][j]:
                bias = None if gains.bias is None else gains.bias[outputs]
                part = part._replace(gain=gains.values[slot, outputs], bias=bias)
            slices.append(part)
        if slices:
            packed = torch.cat(
                [a[slot, j * max_rank : j * max_rank + rank] for j, rank in enumerate(ranks[slot])]
            )
            live[slot] = LiveSlot(packed.T, tuple(slices), offsets[-1])
    return live
