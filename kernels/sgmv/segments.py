"""Segments: which rows of a batch are of which adapter."""

from __future__ import annotations

from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor

NO_ADAPTER = -1

Rows = slice | Tensor


class Segment(NamedTuple):
    """The rows of one adapter; `rows` is a slice when they are adjacent, else an index tensor."""

    slot: int
    size: int
    rows: Rows


def find_segments(row_slots: Tensor, device: torch.device) -> tuple[Segment, ...]:
    """Return a segment for each slot that has rows, in the order of first appearance.

    Reads `row_slots` [T] on the host; index tensors are made on `device`.
    """
    runs: dict[int, list[range]] = {}
    start = 0
    for slot, group in groupby(row_slots.tolist()):
        stop = start + sum(1 for _ in group)
        if slot != NO_ADAPTER:
            runs.setdefault(slot, []).append(range(start, stop))
        start = stop
    return tuple(_segment(slot, ranges, device) for slot, ranges in runs.items())


def _segment(slot: int, ranges: list[range], device: torch.device) -> Segment:
    if len(ranges) == 1:
        return Segment(slot, len(ranges[0]), slice(ranges[0].start, ranges[0].stop))
    rows = [row for run in ranges for row in run]
    return Segment(slot, len(rows), torch.tensor(rows, device=device))
