"""A step's segments as machine code on a CPU takes them: a few rows of one adapter at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from aril.kernels.native import NativeBlocks
    from aril.kernels.sgmv.segments import Segment

# Rows of one adapter that a thread takes together, reading its weights once. Four to sixty-four
# take the same time; fewer share a small step out to more threads.
TOGETHER = 8


@dataclass(slots=True, eq=False)
class RowTasks:
    """All rows that have an adapter, in tasks.

    `tasks` int64 [n, 3]: a slot, the first of `rows` and how many of them; `rows` int64; `scales`
    float32 [rows], None where all are 1.
    """

    tasks: Tensor
    rows: Tensor
    scales: Tensor | None
    blocks: NativeBlocks | None = None  # the same as the kernel takes it, once it has been asked


def cut_into_tasks(segments: Sequence[Segment]) -> RowTasks:
    """Cut segments into tasks on the host."""
    tasks: list[tuple[int, int, int]] = []
    rows: list[int] = []
    scales: list[float] = []
    for segment in segments:
        own = segment.rows
        places = range(own.start, own.stop) if isinstance(own, slice) else own.tolist()
        tasks += [
            (segment.slot, len(rows) + first, min(TOGETHER, segment.size - first))
            for first in range(0, segment.size, TOGETHER)
        ]
        rows += places
        scales += [1.0] * segment.size if segment.scales is None else segment.scales[:, 0].tolist()
    return RowTasks(
        torch.tensor(tasks, dtype=torch.int64).view(-1, 3),
        torch.tensor(rows, dtype=torch.int64),
        None if all(each == 1 for each in scales) else torch.tensor(scales, dtype=torch.float32),
    )
