"""Scratch memory of the numpy products: buffers that one segment uses after another."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

# Pairs of a number of rows and a layout whose views are kept: a few steps' worth.
MOST_VIEWS = 1024


class Layout:
    """Where the linears of an adapter lie in x A and in y.

    The layers of a model share theirs, see `layout_of`, so that a look-up costs an address's hash.
    """

    def __init__(self, places: tuple[tuple[int, int, int, int], ...], width: int) -> None:
        self.columns = [slice(first, last) for first, last, _, _ in places]
        self.outputs = [slice(first, last) for _, _, first, last in places]
        self.rank_sum = places[-1][1]
        self.width = width


@lru_cache(maxsize=4096)
def layout_of(places: tuple[tuple[int, int, int, int], ...], width: int) -> Layout:
    """Return the one layout for these columns (first, past the last) and outputs (likewise)."""
    return Layout(places, width)


class Buffers(NamedTuple):
    """Room for one segment of n rows; what is in it is anything."""

    shrunk: Array  # [n, sum of ranks], x A
    columns: list[Array]  # of shrunk, by linear
    delta: Array  # [n, width of the group], x A B
    outputs: list[Array]  # of delta, by linear


class Scratch:
    """As much memory as the largest segment took, and views of it. For one thread at a time."""

    def __init__(self) -> None:
        self._views: dict[tuple[int, Layout], Buffers] = {}
        self._shrunk = np.empty(0, np.float32)
        self._delta = np.empty(0, np.float32)

    def buffers(self, rows: int, layout: Layout) -> Buffers:
        """Return the buffers for this many rows of an adapter."""
        found = self._views.get((rows, layout))
        if found is None:
            found = self._views[rows, layout] = self._make(rows, layout)
        return found

    def _make(self, rows: int, layout: Layout) -> Buffers:
        self._grow(rows * layout.rank_sum, rows * layout.width)
        shrunk = self._shrunk[: rows * layout.rank_sum].reshape(rows, layout.rank_sum)
        delta = self._delta[: rows * layout.width].reshape(rows, layout.width)
        return Buffers(
            shrunk,
            [shrunk[:, columns] for columns in layout.columns],
            delta,
            [delta[:, outputs] for outputs in layout.outputs],
        )

    def _grow(self, shrunk: int, delta: int) -> None:
        grows = shrunk > self._shrunk.size or delta > self._delta.size
        if grows or len(self._views) >= MOST_VIEWS:
            self._views.clear()  # views keep the memory that they were made of
        if shrunk > self._shrunk.size:
            self._shrunk = np.empty(shrunk, np.float32)
        if delta > self._delta.size:
            self._delta = np.empty(delta, np.float32)
