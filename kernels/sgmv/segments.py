"""Segments: which rows of a batch are of which adapter."""

from __future__ import annotations

from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor

NO_ADAPTER = -1

Rows = slice | Tensor


class Segment(NamedTuple):
    """The rows of one adapter; `rows` is a slice when they are adjacent, else an index tensor.

    `scales` float32 [size, 1] are the rows' own, None where all are 1.
    """

    slot: int
    size: int
    rows: Rows
    scales: Tensor | None = None


def find_segments(
    row_slots: Tensor, device: torch.device, row_scales: Tensor | None = None
) -> tuple[Segment, ...]:
    """Return a segment for each slot that has rows, in the order of first appearance.

    Reads `row_slots` [T] on the host, and `row_scales` [T] where a segment has others than 1; index
    tensors are made on `device`.
    """
    runs: dict[int, list[range]] = {}
    start = 0
    for slot, group in groupby(row_slots.tolist()):
        stop = start + sum(1 for _ in group)
        if slot != NO_ADAPTER:
            runs.setdefault(slot, []).append(range(start, stop))
        start = stop
    factors = None if row_scales is None else row_scales.tolist()
    return tuple(_segment(slot, ranges, factors, device) for slot, ranges in runs.items())


def _segment(
    slot: int, ranges: list[range], factors: list[float] | None, device: torch.device
) -> Segment:
    scales = None
    if factors is not None:
        own = [factors[row] for run in ranges for row in run]
        if any(factor != 1 for factor in own):
            scales = torch.tensor(own, dtype=torch.float32, device=device)[:, None]
    if len(ranges) == 1:
        return Segment(slot, len(ranges[0]), slice(ranges[0].start, ranges[0].stop), scales)
    rows = [row for run in ranges for row in run]
    return Segment(slot, len(rows), torch.tensor(rows, device=device), scales)
