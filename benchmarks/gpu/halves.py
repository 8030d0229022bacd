"""The two launches of an SGMV call, apart: bound to sets of operands, and checked against fp64."""

from __future__ import annotations

from functools import cached_property, partial
from typing import TYPE_CHECKING

import torch

from aril.kernels.sgmv import SgmvMode, make_plan, sgmv_
from aril.kernels.sgmv.launch import sgmv_expand, sgmv_shrink
from benchmarks.gpu.problem import TOLERANCE, row_error

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from aril.kernels.sgmv.tiles import Tiles
    from benchmarks.gpu.candidates import ExpandTiles, ShrinkTiles
    from benchmarks.gpu.problem import Problem

# The shrink's sums stay fp32, so only their order may differ from fp64's.
SUM_TOLERANCE = 1e-4


class Halves:
    """The sets of operands of one case, all of the same rows and one rank; at most four slices.

    The shrunk rows of all sets share one buffer, as those of a service's calls do: in the cache,
    written just before they are read.
    """

    def __init__(self, pool: Sequence[Problem]) -> None:
        first = pool[0]
        self.pool = pool
        self.plan = make_plan(
            first.row_slots, slots=first.slots, mode=SgmvMode.INVARIANT, device=first.device
        )
        self._ranks, self._scales = first.ranks_and_scales
        self._a = [torch.cat(own.a, 1) for own in pool]
        self._y = first.y.clone()  # the timed calls add to the sets' own
        generator = torch.Generator(first.device).manual_seed(0)
        size = (len(first.x), self._a[0].shape[1])
        self._shrunk = torch.randn(size, generator=generator, device=first.device)
        self._planes: dict[int, Tensor] = {}

    def shrink(self, tiles: ShrinkTiles) -> list[Callable[[], None]]:
        """Return a call for each set."""
        planes = self._planes_of(tiles.splits)
        return [self._shrink(number, tiles, planes) for number in range(len(self.pool))]

    def expand(self, tiles: ExpandTiles) -> list[Callable[[], None]]:
        """Return a call for each set, which adds to its y."""
        planes = self._planes_of(tiles.splits)
        return [self._expand(own, own.y, tiles, planes) for own in self.pool]

    def whole(self, tiles: Tiles) -> list[Callable[[], None]]:
        """Return a call of both for each set, as the operator makes it."""
        return [self._whole(number, tiles) for number in range(len(self.pool))]

    def shrink_error(self, tiles: ShrinkTiles) -> float:
        """Return the largest ‖got - exact‖ / ‖exact‖ of a row, in units of what may be."""
        planes = torch.full_like(self._planes_of(tiles.splits), float("nan"))
        self._shrink(0, tiles, planes)()
        return row_error(planes.double().sum(0), self._exact_shrunk) / SUM_TOLERANCE

    def expand_error(self, tiles: ExpandTiles) -> float:
        """Likewise; the shrunk rows are given, the same for any number of splits."""
        y = self._y.clone()
        self._expand(self.pool[0], y, tiles, self._part(tiles.splits))()
        return row_error(y, self._exact_added) / TOLERANCE[y.dtype]

    def _shrink(self, number: int, tiles: ShrinkTiles, planes: Tensor) -> Callable[[], None]:
        table = self.plan.blocks(tiles.block_m)
        return partial(
            sgmv_shrink, planes, self.pool[number].x, self._a[number],
            self._ranks, table.rows, table.slots,
            tiles.shrink_n, tiles.shrink_k, tiles.warps, tiles.shrink_stages,
        )  # fmt: skip

    def _expand(
        self, own: Problem, y: Tensor, tiles: ExpandTiles, planes: Tensor
    ) -> Callable[[], None]:
        table = self.plan.blocks(tiles.block_m)
        return partial(
            sgmv_expand, y, planes, list(own.b), self._ranks, self._scales, table.rows, table.slots,
            0, 0, tiles.expand_n, tiles.expand_r, tiles.warps,
        )  # fmt: skip

    def _whole(self, number: int, tiles: Tiles) -> Callable[[], None]:
        own = self.pool[number]
        return partial(
            sgmv_, own.y, own.x, self._a[number], own.b, self._ranks, self._scales, self.plan,
            backend="triton", tiles=tiles,
        )  # fmt: skip

    def _planes_of(self, splits: int) -> Tensor:
        if splits not in self._planes:
            self._planes[splits] = self._part(splits)
        return self._planes[splits]

    def _part(self, splits: int) -> Tensor:
        """Give each split an equal part of the shrunk rows."""
        return (self._shrunk / splits).repeat(splits, 1, 1)

    @cached_property
    def _exact_shrunk(self) -> Tensor:
        x, a = self.pool[0].x, self._a[0]
        exact = torch.zeros(self._shrunk.shape, dtype=torch.float64, device=x.device)
        for slot, _, rows, _ in self.plan.segments:
            exact[rows] = x[rows].double() @ a[slot].double().T
        return exact

    @cached_property
    def _exact_added(self) -> Tensor:
        own = self.pool[0]
        exact = self._y.double()
        for slot, _, rows, _ in self.plan.segments:
            parts = self._shrunk[rows].double().chunk(len(own.b), 1)
            products = [part @ b[slot].double().T for part, b in zip(parts, own.b, strict=True)]
            exact[rows] += own.scales[slot] * torch.cat(products, 1)
        return exact
