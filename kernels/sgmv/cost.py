"""Work and memory traffic of one SGMV call: the one source of every flop and byte figure.

The model counts what has to move between memory and chip once: each distinct adapter's weights
once, x once, y read and written, the shrunk rows written and read in fp32 for each split of K.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PLANE_BYTES = 4


@dataclass(frozen=True, slots=True)
class Cost:
    """Floating point operations and bytes of memory traffic."""

    flops: int
    bytes: int

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.flops + other.flops, self.bytes + other.bytes)

    @property
    def intensity(self) -> float:
        """Flops per byte; 0 for no traffic."""
        return self.flops / self.bytes if self.bytes else 0.0


def shrink_cost(
    segments: Mapping[int, int],
    ranks: Mapping[int, Sequence[int]],
    *,
    in_features: int,
    element_bytes: int = 2,
    splits: int = 1,
) -> Cost:
    """Cost of x A for `segments` (slot → rows) of adapters with `ranks` (slot → rank a slice)."""
    flops = traffic = 0
    for slot, rows in segments.items():
        rank = sum(ranks[slot])
        if rank == 0 or rows == 0:
            continue
        flops += 2 * rows * in_features * rank
        traffic += element_bytes * in_features * (rows + rank)
        traffic += PLANE_BYTES * splits * rows * rank
    return Cost(flops, traffic)


def expand_cost(
    segments: Mapping[int, int],
    ranks: Mapping[int, Sequence[int]],
    *,
    widths: Sequence[int],
    element_bytes: int = 2,
    splits: int = 1,
) -> Cost:
    """Cost of adding (x A) B to y, slice by slice; a slice of rank 0 is not touched."""
    flops = traffic = 0
    for slot, rows in segments.items():
        if rows == 0:
            continue
        for rank, width in zip(ranks[slot], widths, strict=True):
            if rank == 0:
                continue
            flops += 2 * rows * rank * width
            traffic += PLANE_BYTES * splits * rows * rank
            traffic += element_bytes * width * (rank + 2 * rows)
    return Cost(flops, traffic)


def sgmv_cost(
    segments: Mapping[int, int],
    ranks: Mapping[int, Sequence[int]],
    *,
    in_features: int,
    widths: Sequence[int],
    element_bytes: int = 2,
    splits: int = 1,
) -> Cost:
    """Cost of one call of `sgmv_`: shrink and expand."""
    return shrink_cost(
        segments, ranks, in_features=in_features, element_bytes=element_bytes, splits=splits
    ) + expand_cost(segments, ranks, widths=widths, element_bytes=element_bytes, splits=splits)


def gather_bmm_cost(
    segments: Mapping[int, int],
    ranks: Mapping[int, Sequence[int]],
    *,
    in_features: int,
    widths: Sequence[int],
    element_bytes: int = 2,
) -> Cost:
    """Cost of copying every row's weights together and multiplying the copies.

    The weights of each row are read, written and read again, however many rows share them.
    """
    base = sgmv_cost(
        segments, ranks, in_features=in_features, widths=widths, element_bytes=element_bytes
    )
    traffic = base.bytes
    for slot, rows in segments.items():
        weights = sum(
            rank * (in_features + width) for rank, width in zip(ranks[slot], widths, strict=True)
        )
        traffic += element_bytes * weights * (3 * rows - (1 if rows else 0))
    return Cost(base.flops, traffic)


def byte_table(rows: int = 64, rank: int = 16, features: int = 4096) -> str:
    """Bytes of SGMV and of Gather-BMM for one batch shared out in three ways, as Markdown.

    Distinct: each row its own adapter. Uniform: √rows adapters with √rows rows each. Identical:
    all rows one adapter.
    """
    shared = int(rows**0.5)
    workloads = {
        "Distinct": dict.fromkeys(range(rows), 1),
        "Uniform": dict.fromkeys(range(rows // shared), shared),
        "Identical": {0: rows},
    }
    lines = [
        "| workload | adapters | SGMV, MB | flops per byte | Gather-BMM, MB | times |",
        "|---|---|---|---|---|---|",
    ]
    for name, segments in workloads.items():
        ranks = {slot: [rank] for slot in segments}
        ours = sgmv_cost(segments, ranks, in_features=features, widths=[features])
        gathered = gather_bmm_cost(segments, ranks, in_features=features, widths=[features])
        lines.append(
            f"| {name} | {len(segments)} | {ours.bytes / 1e6:.2f} | {ours.intensity:.1f} "
            f"| {gathered.bytes / 1e6:.1f} | {gathered.bytes / ours.bytes:.1f} |"
        )
    return "\n".join(lines)
