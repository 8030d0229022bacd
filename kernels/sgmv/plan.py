"""Which rows of a step belong to which adapter slot: built once per step, shared by all layers."""

from __future__ import annotations

from enum import StrEnum
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterable

NO_ADAPTER = -1


class SgmvMode(StrEnum):
    """How far a row's bits may depend on its neighbours.

    `FAST` chooses tiles by the size of the batch. `INVARIANT` chooses them by the shape of the
    weights alone: a row's result has the same bits alone and in any mix, at any position.
    """

    FAST = "fast"
    INVARIANT = "invariant"


class Segment(NamedTuple):
    """The rows of one adapter; `rows` is a slice when they are adjacent, else an index tensor."""

    slot: int
    size: int
    rows: slice | Tensor


class SgmvPlan:
    """The segments of one step.

    Make it with `make_plan`. The same plan serves every layer of the step, because the rows of a
    batch keep their adapter through the whole model.
    """

    def __init__(self, row_slots: Tensor, *, slots: int, mode: SgmvMode) -> None:
        self.row_slots = row_slots
        self.slots = slots
        self.mode = mode

    @property
    def rows(self) -> int:
        """How many rows the step has, with and without adapter."""
        return self.row_slots.shape[0]

    @cached_property
    def segments(self) -> tuple[Segment, ...]:
        """One segment per adapter, in the order of first appearance (reads the ids on the host)."""
        return tuple(_segments(self.row_slots.tolist(), self.row_slots.device))


def make_plan(row_slots: Tensor, *, slots: int, mode: SgmvMode | str = SgmvMode.FAST) -> SgmvPlan:
    """Plan one step from the adapter slot of each row.

    `row_slots` is int32 [T]; -1 means no adapter, else the id is in [0, slots). Rows of one
    adapter need not be adjacent; adjacent rows are read without a copy on the CPU.

    Raises `ValueError` when the tensor has another shape or type or an id is out of range.
    """
    if row_slots.ndim != 1 or row_slots.dtype != torch.int32:
        raise ValueError(
            f"row_slots must be int32 [T], got {row_slots.dtype} {tuple(row_slots.shape)}"
        )
    if slots < 1:
        raise ValueError(f"slots must be positive, got {slots}")
    _refuse_ids_out_of_range(row_slots, slots)
    return SgmvPlan(row_slots, slots=slots, mode=SgmvMode(mode))


def _refuse_ids_out_of_range(row_slots: Tensor, slots: int) -> None:
    if row_slots.numel() == 0:
        return
    low, high = (int(bound) for bound in torch.aminmax(row_slots))
    if low < NO_ADAPTER or high >= slots:
        raise ValueError(f"row_slots hold ids from {low} to {high}, allowed are -1 to {slots - 1}")


def _segments(row_slots: list[int], device: torch.device) -> Iterable[Segment]:
    runs: dict[int, list[range]] = {}
    start = 0
    for slot, group in groupby(row_slots):
        stop = start + sum(1 for _ in group)
        if slot != NO_ADAPTER:
            runs.setdefault(slot, []).append(range(start, stop))
        start = stop
    for slot, ranges in runs.items():
        if len(ranges) == 1:
            only = ranges[0]
            yield Segment(slot, len(only), slice(only.start, only.stop))
        else:
            rows = [row for run in ranges for row in run]
            yield Segment(slot, len(rows), torch.tensor(rows, device=device))
