"""A plan on the host: checked ids, and all that a device is to be told of them, as arrays."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from aril.kernels.sgmv.row_blocks import BlockTable, lay_out_blocks
from aril.kernels.sgmv.segments import NO_ADAPTER

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

_NO_IDS = np.zeros(0, np.int32)
_NO_SCALES = np.zeros(0, np.float32)


class PlanLayout:
    """The slot of each row, and what follows from it.

    `row_slots` int32 [T] and `row_scales` float32 [T] (None: all 1) are as in `make_plan`. With
    `block_m` the table of blocks of that height is laid out too. A `static` one has all arrays, as
    long as any step of so many rows needs them. Raises ValueError when an id is out of range.
    """

    def __init__(
        self,
        row_slots: NDArray[np.int32],
        row_scales: NDArray[np.float32] | None,
        *,
        slots: int,
        block_m: int | None = None,
        static: bool = False,
    ) -> None:
        self.slots = slots
        self.static = static
        self._ids = row_slots
        if len(row_slots):
            low, high = int(row_slots.min()), int(row_slots.max())
            if low < NO_ADAPTER or high >= slots:
                raise ValueError(
                    f"row_slots hold ids from {low} to {high}, allowed are -1 to {slots - 1}"
                )
        if static and row_scales is None:
            row_scales = np.ones(len(row_slots), np.float32)
        self._scales = row_scales
        self.table: BlockTable | None = None
        if block_m is not None:
            self.table = lay_out_blocks(row_slots, block_m=block_m, slots=slots, static=static)

    @property
    def ids(self) -> Tensor:
        """The rows' slots on the host."""
        return torch.from_numpy(self._ids)

    @property
    def scales(self) -> Tensor | None:
        """The rows' scales on the host."""
        return None if self._scales is None else torch.from_numpy(self._scales)

    @property
    def arrays(self) -> tuple[NDArray[Any], ...]:
        """What a device is told: slots, scales, and the table's rows and slots; empty for none."""
        rows, slots = (_NO_IDS, _NO_IDS) if self.table is None else self.table[:2]
        return self._ids, _NO_SCALES if self._scales is None else self._scales, rows, slots

    @property
    def adapters(self) -> int:
        """How many adapters the rows are of."""
        return len(self._sizes)

    def blocks(self, block_m: int) -> int:
        """How many blocks of a height the segments need."""
        return int((-(-self._sizes // block_m)).sum())

    @cached_property
    def _sizes(self) -> NDArray[np.int64]:
        """How many rows each adapter has."""
        return np.unique(self._ids[self._ids != NO_ADAPTER], return_counts=True)[1]
