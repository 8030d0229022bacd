"""Work and memory traffic of one SGMV call: the one source of every flop and byte figure.

The model counts what has to move between memory and chip once: each distinct adapter's weights
once, x once, y read and written, the shrunk rows written and read in fp32 for each split of K.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Container, Mapping, Sequence

PLANE_BYTES = 4
GAIN_BYTES = 4


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
    dora: Container[int] = (),
    bias: bool = False,
) -> Cost:
    """Cost of adding (x A) B to y, slice by slice; a slice of rank 0 is not touched.

    The slots in `dora` have gains: an fp32 value an output, and the bias where there is one, read
    once an adapter; one product, and two sums with a bias, an output and row.
    """
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
            if slot in dora:
                flops += rows * width * (3 if bias else 1)
                traffic += width * (GAIN_BYTES + (element_bytes if bias else 0))
    return Cost(flops, traffic)


def sgmv_cost(
    segments: Mapping[int, int],
    ranks: Mapping[int, Sequence[int]],
    *,
    in_features: int,
    widths: Sequence[int],
    element_bytes: int = 2,
    splits: int = 1,
    dora: Container[int] = (),
    bias: bool = False,
) -> Cost:
    """Cost of one call of `sgmv_`: shrink and expand; `dora` and `bias` as in `expand_cost`."""
    return shrink_cost(
        segments, ranks, in_features=in_features, element_bytes=element_bytes, splits=splits
    ) + expand_cost(
        segments,
        ranks,
        widths=widths,
        element_bytes=element_bytes,
        splits=splits,
        dora=dora,
        bias=bias,
    )


def gather_bmm_cost(
    segments: Mapping[int, int],
    ranks: Mapping[int, Sequence[int]],
    *,
    in_features: int,
    widths: Sequence[int],
    element_bytes: int = 2,
    cached: bool = False,
) -> Cost:
    """Cost of copying every row's weights together and multiplying the copies.

    The weights of each row are read, written and read again, however many rows share them; with
    `cached` a cache serves the first read to all rows of an adapter but one.
    """
    base = sgmv_cost(
        segments, ranks, in_features=in_features, widths=widths, element_bytes=element_bytes
    )
    traffic = base.bytes
    for slot, rows in segments.items():
        weights = _weights(ranks[slot], in_features, widths)
        first_reads = min(rows, 1) if cached else rows
        traffic += element_bytes * weights * (first_reads + 2 * rows - min(rows, 1))
    return Cost(base.flops, traffic)


def gathered_bmm_cost(
    segments: Mapping[int, int],
    ranks: Mapping[int, Sequence[int]],
    *,
    in_features: int,
    widths: Sequence[int],
    element_bytes: int = 2,
) -> Cost:
    """Cost of the batched product alone, on copies that were made before: each is read once."""
    base = sgmv_cost(
        segments, ranks, in_features=in_features, widths=widths, element_bytes=element_bytes
    )
    copies = sum(
        _weights(ranks[slot], in_features, widths) * (rows - 1)
        for slot, rows in segments.items()
        if rows
    )
    return Cost(base.flops, base.bytes + element_bytes * copies)


def _weights(ranks: Sequence[int], in_features: int, widths: Sequence[int]) -> int:
    """Count one adapter's numbers."""
    return sum(rank * (in_features + width) for rank, width in zip(ranks, widths, strict=True))


def punica_bytes(rows: int, adapters: int, *, rank: int, in_features: int, width: int) -> int:
    """Bytes by the formula of Punica's section 7.1, for shrink and expand in fp16.

    2 · (rows · (h_in + h_out) + adapters · h_in · h_out) for each product: y counts once although
    it is read and written, and the shrunk rows are fp16.
    """
    return sum(
        2 * (rows * (h_in + h_out) + adapters * h_in * h_out)
        for h_in, h_out in ((in_features, rank), (rank, width))
    )


@dataclass(frozen=True, slots=True)
class Roofs:
    """A device's ceilings: `memory` in bytes/s, `products` in flops/s, `launch` in s a kernel."""

    memory: float
    products: float
    launch: float

    def seconds(self, cost: Cost, *, launches: int = 2) -> float:
        """Return the least time: the slowest of memory, products and launches."""
        return max(cost.bytes / self.memory, cost.flops / self.products, launches * self.launch)


# The maker's figures for the H100 SXM, and a launch within a CUDA graph by common experience:
# for predictions only, until a device was measured.
H100_SXM = Roofs(memory=3.35e12, products=989e12, launch=2e-6)
