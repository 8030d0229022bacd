"""Four ways to compute the same thing, slowest to read first: the tests hold them equal.

One linear, to keep each way short: x [T, h], a [slots, r, h], b [slots, w, r], scale [slots],
row_slots [T] with -1 for rows without adapter. Each returns what is to be added to the backbone's
y [T, w]. `exact` is what the tests measure the kernels against.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from aril.kernels.sgmv.row_blocks import build_blocks, worst_case_blocks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from aril.kernels.sgmv.gains import Gains


def row_by_row(x: Tensor, a: Tensor, b: Tensor, scale: Tensor, row_slots: Tensor) -> Tensor:
    """Take each request alone: right, and each row waits for its own two tiny products."""
    delta = x.new_zeros(len(x), b.shape[1])
    for i, s in enumerate(row_slots.tolist()):
        if s >= 0:
            delta[i] = scale[s] * (x[i] @ a[s].T) @ b[s].T
    return delta


def adapter_by_adapter(x: Tensor, a: Tensor, b: Tensor, scale: Tensor, row_slots: Tensor) -> Tensor:
    """Take each adapter's rows together: weights are read once, but it is a launch per adapter."""
    delta = x.new_zeros(len(x), b.shape[1])
    for s in row_slots[row_slots >= 0].unique().tolist():
        rows = row_slots == s
        delta[rows] = scale[s] * (x[rows] @ a[s].T) @ b[s].T
    return delta


def gather_bmm(x: Tensor, a: Tensor, b: Tensor, scale: Tensor, row_slots: Tensor) -> Tensor:
    """Copy each row's weights side by side, then one batched product: weights move three times."""
    s = row_slots.clamp(min=0).long()
    shrunk = torch.bmm(a[s], x[:, :, None])
    delta = scale[s, None] * torch.bmm(b[s], shrunk)[:, :, 0]
    return delta.where(row_slots[:, None] >= 0, 0)


def sgmv(x: Tensor, a: Tensor, b: Tensor, scale: Tensor, row_slots: Tensor) -> Tensor:
    """Cut the rows in blocks of one adapter; every block finds its weights by its slot.

    This is what the Triton kernels do: here the blocks are a loop, there they are one launch.
    """
    blocks = worst_case_blocks(len(x), len(a), 16)
    table = build_blocks(row_slots, slots=len(a), block_m=16, blocks=blocks)
    delta = x.new_zeros(len(x), b.shape[1])
    for rows, s in zip(table.rows.view(-1, 16).long(), table.slots.tolist(), strict=True):
        rows = rows[rows < len(x)]  # noqa: PLW2901 - the padding goes
        delta[rows] = scale[s] * (x[rows] @ a[s].T) @ b[s].T
    return delta


def exact(  # noqa: PLR0917 - the operands, in the order of the formula
    x: Tensor,
    a: Tensor,
    b: Sequence[Tensor],
    ranks: Tensor,
    scales: Tensor,
    row_slots: Tensor,
    row_scales: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return what `sgmv_` adds to y, in fp64, and the same with every term taken absolute.

    Operands as in `sgmv_`. The second tensor bounds the rounding of any order of summation.
    """
    max_rank = b[0].shape[2]
    parts = []
    magnitudes = []
    for j, weights in enumerate(b):
        delta = torch.zeros(len(x), weights.shape[1], dtype=torch.float64, device=x.device)
        magnitude = delta.clone()
        for i, s in enumerate(row_slots.tolist()):
            rank = int(ranks[s, j]) if s >= 0 else 0
            if rank:
                a_live = a[s, j * max_rank : j * max_rank + rank].double()
                b_live = weights[s, :, :rank].double()
                scale = scales[s, j].double()
                if row_scales is not None:
                    scale = scale * row_scales[i].double()
                delta[i] = scale * (x[i].double() @ a_live.T) @ b_live.T
                magnitude[i] = scale.abs() * (x[i].double().abs() @ a_live.abs().T) @ b_live.abs().T
        parts.append(delta)
        magnitudes.append(magnitude)
    return torch.cat(parts, 1), torch.cat(magnitudes, 1)


def exact_with_gains(  # noqa: PLR0917 - the operands, in the order of the formula
    y: Tensor,
    delta: Tensor,
    magnitude: Tensor,
    gains: Gains,
    widths: Sequence[int],
    ranks: Tensor,
    row_slots: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return y after `sgmv_` with gains, in fp64, and what bounds its rounding.

    `delta` and `magnitude` are what `exact` returns for the same operands. The second tensor scales
    the rounding of x A B, the third that of the other sums: y and the bias, every term absolute.
    """
    after = y.double() + delta
    product = magnitude.clone()
    others = torch.zeros_like(after)
    for i, s in enumerate(row_slots.tolist()):
        start = 0
        for j, width in enumerate(widths):
            part = slice(start, start + width)
            start += width
            if s < 0 or not gains.present[s, j] or not ranks[s, j]:
                continue
            gain = gains.values[s, part].double()
            own = y[i, part].double()
            bias = torch.zeros_like(own) if gains.bias is None else gains.bias[part].double()
            after[i, part] = gain * ((own - bias) + delta[i, part]) + bias
            product[i, part] *= gain.abs()
            others[i, part] = gain.abs() * (own.abs() + bias.abs()) + bias.abs()
    return after, product, others
