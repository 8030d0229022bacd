"""A step's segments as a CPU takes them: those of few rows in one call, the others one by one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from kernels.native import NativeBlocks
    from kernels.sgmv.segments import Segment

# Up to this many rows machine code of ours is about as fast as matrix products of a library, above
# it is slower (benchmarks/results/native_kernels.csv).
FEW = 32

# Rows of one adapter that one thread takes together, reading its weights once.
TOGETHER = 8


@dataclass(slots=True, eq=False)
class FewRows:
    """The rows of small segments in tasks, and the segments that are too large for that.

    `tasks` int64 [n, 3]: a slot, the first of `rows` and how many of them; `rows` int64; `scales`
    float32 [rows], None where all are 1.
    """

    tasks: Tensor
    rows: Tensor
    scales: Tensor | None
    large: tuple[Segment, ...]
    blocks: NativeBlocks | None = None  # the same as the kernel takes it, once it has been asked


def find_few_rows(segments: Sequence[Segment], *, most: int | None) -> FewRows:
    """Sort segments on the host; all are small where `most` is None."""
    tasks: list[tuple[int, int, int]] = []
    rows: list[int] = []
    scales: list[float] = []
    large = []
    for segment in segments:
        if most is not None and segment.size > most:
            large.append(segment)
            continue
        own = segment.rows
        places = range(own.start, own.stop) if isinstance(own, slice) else own.tolist()
        tasks += [
            (segment.slot, len(rows) + first, min(TOGETHER, segment.size - first))
            for first in range(0, segment.size, TOGETHER)
        ]
        rows += places
        scales += [1.0] * segment.size if segment.scales is None else segment.scales[:, 0].tolist()
    return FewRows(
        torch.tensor(tasks, dtype=torch.int64).view(-1, 3),
        torch.tensor(rows, dtype=torch.int64),
        None if all(each == 1 for each in scales) else torch.tensor(scales, dtype=torch.float32),
        tuple(large),
    )
