"""Random SGMV problems, and the bound that any right answer keeps."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from aril.kernels.sgmv import Gains, make_plan, sgmv_
from aril.kernels.sgmv.reference import exact, exact_with_gains
from aril.kernels.sgmv.tiles import Tiles
from tests.support.device import device_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

# Small enough that a tiny problem has several tiles and splits in every direction.
SMALL_TILES = Tiles(
    block_m=16, shrink_n=16, shrink_k=16, splits=3, expand_n=16, expand_r=16, warps=4,
    shrink_stages=3,
)  # fmt: skip
VECTOR_TILES = SMALL_TILES._replace(block_m=2)

GUARD = 7.0

# All that must agree: each backend, and Triton in its matrix-vector form.
VECTORS = "triton, matrix-vector"
WAYS = ("native", "torch", "triton", VECTORS)
TRITON_WAYS = WAYS[2:]


def backend_of(way: str) -> tuple[str, Tiles | None]:
    """Say which backend a way is, and which tiles it needs; None leaves them to the plan table."""
    return ("triton", VECTOR_TILES) if way == VECTORS else (way, None)


@dataclass(frozen=True)
class SgmvCase:
    """The operands of one call, on the host; weights past the live ranks are NaN: reading shows.

    So are gains that are not present.
    """

    x: Tensor
    y: Tensor
    a: Tensor
    b: tuple[Tensor, ...]
    ranks: Tensor
    scales: Tensor
    row_slots: Tensor
    gains: Gains | None = None
    row_scales: Tensor | None = None

    def run(self, way: str, mode: str = "fast", tiles: Tiles | None = None) -> Tensor:
        """Run `sgmv_` where the way belongs, on a copy of y; `tiles` go before those of the way.

        The copy lies within a larger tensor, of which nothing else may be written.
        """
        backend, own_tiles = backend_of(way)
        there = self.to(device_of(backend))
        rows, width = self.y.shape
        room = there.y.new_full((rows + 2, width), GUARD)
        y = room[1 : rows + 1]
        y.copy_(there.y)
        plan = make_plan(
            self.row_slots,
            slots=len(self.ranks),
            row_scales=self.row_scales,
            mode=mode,
            device=y.device,
        )
        sgmv_(
            y,
            there.x,
            there.a,
            there.b,
            there.ranks,
            there.scales,
            plan,
            gains=there.gains,
            backend=backend,
            tiles=tiles or own_tiles,
        )
        assert bool((room[[0, -1]] == GUARD).all()), "memory beside y was written"
        return y.clone().cpu()

    def to(self, device: torch.device | str) -> SgmvCase:
        """Move all operands but the rows' slots, which a plan is made from on the host."""
        gains = self.gains
        if gains is not None:
            values, present, bias = (None if p is None else p.to(device) for p in gains)
            assert values is not None
            assert present is not None
            gains = Gains(values, present, bias)
        return replace(
            self,
            x=self.x.to(device),
            y=self.y.to(device),
            a=self.a.to(device),
            b=tuple(part.to(device) for part in self.b),
            ranks=self.ranks.to(device),
            scales=self.scales.to(device),
            gains=gains,
        )

    def rows(self, index: Sequence[int]) -> SgmvCase:
        """Keep some of the rows, in this order."""
        rows = list(index)
        scales = None if self.row_scales is None else self.row_scales[rows]
        kept = replace(self, x=self.x[rows], y=self.y[rows], row_slots=self.row_slots[rows])
        return replace(kept, row_scales=scales)

    def keeps_its_bits(self, way: str, tiles: Tiles | None, rows: Sequence[int]) -> None:
        """Hold some rows, each alone, and all in another order against the whole, bit for bit."""
        together = self.run(way, "invariant", tiles)
        for row in rows:
            assert torch.equal(self.rows([row]).run(way, "invariant", tiles)[0], together[row])
        backwards = list(reversed(range(len(self.x))))
        assert torch.equal(self.rows(backwards).run(way, "invariant", tiles), together[backwards])

    def check(self, result: Tensor) -> None:
        """Hold every element against fp64, within what rounding in any order can explain."""
        result = result.cpu()
        delta, magnitude = exact(
            self.x, self.a, self.b, self.ranks, self.scales, self.row_slots, self.row_scales
        )
        expected, others = self.y.double() + delta, torch.zeros_like(delta)
        if self.gains is not None:
            widths = [part.shape[1] for part in self.b]
            expected, magnitude, others = exact_with_gains(
                self.y, delta, magnitude, self.gains, widths, self.ranks, self.row_slots
            )
        terms = self.x.shape[1] ** 0.5 + self.b[0].shape[2] ** 0.5 + 4
        working = torch.finfo(torch.promote_types(self.x.dtype, torch.float32)).eps
        stored = max(torch.finfo(self.x.dtype).eps, torch.finfo(self.y.dtype).eps)
        bound = (working * terms + 2 * stored) * magnitude + 2 * stored * expected.abs()
        bound += 4 * working * others
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
    dora: Sequence[Sequence[int]] | None = None,
    bias: bool = False,
) -> SgmvCase:
    """Make a problem: `ranks[slot][slice]`, and `row_slots[row]` (-1 for none).

    `dora[slot][slice]` says which have gains: around 1, of either sign; powers of two beside
    `integers`. With `bias` the gains leave one out.
    """
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
    x, y = draw(rows, in_features), draw(rows, sum(widths))
    gains = None
    if dora is not None:
        present = torch.tensor(dora, dtype=torch.int32)
        values = torch.randn(slots, sum(widths), generator=generator)
        if integers:
            values = torch.tensor([-2.0, -1.0, 0.5, 2.0])[values.long() % 4]
        values[~present.repeat_interleave(torch.tensor(widths), 1).bool()] = float("nan")
        gains = Gains(values, present, draw(sum(widths)) if bias else None)
    return SgmvCase(
        x=x,
        y=y,
        a=a,
        b=b,
        ranks=rank_table,
        scales=scales,
        row_slots=torch.tensor(list(row_slots), dtype=torch.int32),
        gains=gains,
    )
