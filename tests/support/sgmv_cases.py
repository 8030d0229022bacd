"""Random SGMV problems, and the bound that any right answer keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from kernels.sgmv import make_plan, sgmv_
from kernels.sgmv.reference import exact

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from kernels.sgmv.tiles import Tiles


@dataclass(frozen=True)
class SgmvCase:
    """The operands of one call; weights past the live ranks are NaN, so reading them shows."""

    x: Tensor
    y: Tensor
    a: Tensor
    b: tuple[Tensor, ...]
    ranks: Tensor
    scales: Tensor
    row_slots: Tensor

    def run(self, backend: str, mode: str = "fast", tiles: Tiles | None = None) -> Tensor:
        """Run `sgmv_` on a copy of y."""
        y = self.y.clone()
        plan = make_plan(self.row_slots, slots=len(self.ranks), mode=mode)
        sgmv_(
            y,
            self.x,
            self.a,
            self.b,
            self.ranks,
            self.scales,
            plan,
            backend=backend,
            tiles=tiles,
        )
        return y

    def rows(self, index: Sequence[int]) -> SgmvCase:
        """Keep some of the rows, in this order."""
        rows = list(index)
        return SgmvCase(
            self.x[rows],
            self.y[rows],
            self.a,
            self.b,
            self.ranks,
            self.scales,
            self.row_slots[rows],
        )

    def check(self, result: Tensor) -> None:
        """Hold every element against fp64, within what rounding in any order can explain."""
        delta, magnitude = exact(self.x, self.a, self.b, self.ranks, self.scales, self.row_slots)
        expected = self.y.double() + delta
        terms = self.x.shape[1] ** 0.5 + self.b[0].shape[2] ** 0.5 + 4
        working = torch.finfo(torch.promote_types(self.x.dtype, torch.float32)).eps
        stored = max(torch.finfo(self.x.dtype).eps, torch.finfo(self.y.dtype).eps)
        bound = (working * terms + 2 * stored) * magnitude + 2 * stored * expected.abs()
        excess = (result.double() - expected).abs() - bound
        assert not result.isnan().any(), "an element was never written, or read past a live rank"
        assert excess.max().item() <= 0 if excess.numel() else True, (
            f"{int((excess > 0).sum())} of {excess.numel()} elements are off, "
            f"the worst by {excess.max().item():.3g} over its bound"
        )


def make_case(
    row_slots: Sequence[int],
    ranks: Sequence[Sequence[int]],
    *,
    in_features: int,
    widths: Sequence[int],
    max_rank: int | None = None,
    dtype: torch.dtype = torch.float32,
    integers: bool = False,
    seed: int = 0,
) -> SgmvCase:
    """Make a problem: `ranks[slot][slice]`, and `row_slots[row]` (-1 for none)."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        if integers:
            return torch.randint(-2, 3, shape, generator=generator).to(dtype)
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    rank_table = torch.tensor(ranks, dtype=torch.int32)
    slots, slices = rank_table.shape
    room = max_rank or max(1, int(rank_table.max()))
    a = draw(slots, slices * room, in_features)
    b = tuple(draw(slots, width, room) for width in widths)
    for s in range(slots):
        for j in range(slices):
            rank = int(rank_table[s, j])
            a[s, j * room + rank : (j + 1) * room] = float("nan")
            b[j][s, :, rank:] = float("nan")
    scales = torch.randint(1, 5, (slots, slices), generator=generator) / 4.0
    if integers:
        scales = scales * 4
    rows = len(row_slots)
    return SgmvCase(
        x=draw(rows, in_features),
        y=draw(rows, sum(widths)),
        a=a,
        b=b,
        ranks=rank_table,
        scales=scales,
        row_slots=torch.tensor(list(row_slots), dtype=torch.int32),
    )
