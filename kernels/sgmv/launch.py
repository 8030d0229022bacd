"""The registered operators `aril::sgmv_shrink` and `aril::sgmv_expand`: one kernel launch each.

Imported at the first use of the Triton backend, so that a CPU service never loads Triton.
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

import torch
import triton
from torch import Tensor
from triton.runtime.jit import JITFunction

from aril.kernels.registration import operator
from aril.kernels.sgmv.expand import expand_kernel
from aril.kernels.sgmv.shrink import shrink_kernel
from aril.kernels.sgmv.tiles import EXPAND_STAGES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aril.kernels.sgmv.gains import Gains
    from aril.kernels.sgmv.plan import SgmvPlan
    from aril.kernels.sgmv.tiles import Tiles

# Of one expand: it takes their B as plain arguments, so that a CUDA graph keeps no pointer table.
MAX_SLICES = 4

# A mask that may end at any rank makes each of the expand's loads one of 2 bytes; one that ends at
# whole pieces leaves them 16.
PIECE = 8

INTERPRETED = not isinstance(shrink_kernel, JITFunction)


@operator("sgmv_shrink", mutates=("planes",))
def sgmv_shrink(  # noqa: PLR0917 - the operands, in the order of the formula
    planes: Tensor,
    x: Tensor,
    a: Tensor,
    ranks: Tensor,
    block_rows: Tensor,
    block_slots: Tensor,
    block_n: int,
    block_k: int,
    warps: int,
    stages: int,
) -> None:
    """Fill planes [splits, T, slices · r_max], for rows of the table and live ranks only."""
    splits, rows, stacked = planes.shape
    slices = ranks.shape[1]
    blocks = block_slots.shape[0]
    in_features = x.shape[1]
    max_rank = stacked // slices
    steps = triton.cdiv(triton.cdiv(in_features, block_k), splits)
    tiles = triton.cdiv(max_rank, block_n)
    shrink_kernel[(blocks * splits * slices * tiles,)](
        x,
        a,
        planes,
        ranks,
        block_rows,
        block_slots,
        rows,
        in_features,
        steps * block_k,
        x.stride(0),
        x.stride(1),
        planes.stride(0),
        SLICES=slices,
        MAX_RANK=max_rank,
        TILES=tiles,
        SPLITS=splits,
        BLOCK_M=block_rows.shape[0] // blocks,
        BLOCK_N=block_n,
        BLOCK_K=block_k,
        UPCAST=INTERPRETED and x.dtype is torch.bfloat16,
        num_warps=warps,
        num_stages=stages,
    )


@operator("sgmv_expand", mutates=("y",))
def sgmv_expand(  # noqa: PLR0917 - the operands, in the order of the formula
    y: Tensor,
    planes: Tensor,
    b: list[Tensor],
    ranks: Tensor,
    scales: Tensor,
    block_rows: Tensor,
    block_slots: Tensor,
    first_slice: int,
    first_column: int,
    block_n: int,
    block_r: int,
    warps: int,
    gains: Tensor | None = None,
    has_gain: Tensor | None = None,
    bias: Tensor | None = None,
    row_scales: Tensor | None = None,
) -> None:
    """Add up to four slices' products to y, in place; scale the sums of those that have gains."""
    splits, rows, stacked = planes.shape
    slices = ranks.shape[1]
    blocks = block_slots.shape[0]
    widths = [part.shape[1] for part in b]
    tiles = sum(triton.cdiv(width, block_n) for width in widths)
    spare = MAX_SLICES - len(b)
    block_m = block_rows.shape[0] // blocks
    max_rank = stacked // slices
    expand_kernel[(blocks * tiles,)](
        planes,
        *b,
        *[b[0]] * spare,
        *widths,
        *[0] * spare,
        y,
        ranks,
        scales,
        y if gains is None else gains,  # not read without GAIN and BIAS
        y if has_gain is None else has_gain,
        y if bias is None else bias,
        y if row_scales is None else row_scales,  # not read without SCALED
        block_rows,
        block_slots,
        rows,
        tiles,
        first_column,
        y.stride(0),
        y.stride(1),
        planes.stride(0),
        0 if gains is None else gains.stride(0),
        SLICES=slices,
        FIRST_SLICE=first_slice,
        MAX_RANK=max_rank,
        SPLITS=splits,
        BLOCK_M=block_m,
        BLOCK_N=block_n,
        BLOCK_R=block_r,
        PIECE=PIECE if max_rank % PIECE == 0 else 1,
        GAIN=gains is not None,
        BIAS=bias is not None,
        SCALED=row_scales is not None,
        UPCAST=INTERPRETED and b[0].dtype is torch.bfloat16,
        num_warps=warps,
        num_stages=EXPAND_STAGES,
    )


def sgmv_triton_(  # noqa: PLR0917 - the operands, in the order of the formula
    y: Tensor,
    x: Tensor,
    a: Tensor,
    b: Sequence[Tensor],
    ranks: Tensor,
    scales: Tensor,
    plan: SgmvPlan,
    tiles: Tiles,
    gains: Gains | None = None,
) -> None:
    """Launch one shrink and an expand per four slices; nothing if no row has an adapter."""
    table = plan.blocks(tiles.block_m)
    if table.slots.shape[0] == 0:
        return
    planes = torch.empty(tiles.splits, x.shape[0], a.shape[1], device=x.device, dtype=torch.float32)
    sgmv_shrink(
        planes,
        x,
        a,
        ranks,
        table.rows,
        table.slots,
        tiles.shrink_n,
        tiles.shrink_k,
        tiles.warps,
        tiles.shrink_stages,
    )
    columns = list(accumulate((part.shape[1] for part in b), initial=0))
    for first in range(0, len(b), MAX_SLICES):
        sgmv_expand(
            y,
            planes,
            list(b[first : first + MAX_SLICES]),
            ranks,
            scales,
            table.rows,
            table.slots,
            first,
            columns[first],
            tiles.expand_n,
            tiles.expand_r,
            tiles.warps,
            *(gains or (None, None, None)),
            plan.row_scales,
        )
