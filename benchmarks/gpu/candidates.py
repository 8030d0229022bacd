"""The tile choices that a sweep tries: of shrink and of expand apart, then of both together.

The two launches of a call share the height of a block, the splits of K and the warps, and nothing
else. Timed apart, shrink's fields and expand's are varied in a sum of candidates, where choices of
whole calls would be their product; `joined` adds the times up again.
"""

from __future__ import annotations

import itertools
import statistics
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from aril.kernels.sgmv import SgmvMode
from aril.kernels.sgmv.tiles import MIN_TILE, Tiles, choose_tiles, matrix_vector_tiles

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

# Numbers that a thread may hold before the compiler spills, of 255 registers: the bounds that part
# what spills from what doesn't when all around them is compiled for Hopper. A test compiles every
# candidate.
SHRINK_REGISTERS = 200
EXPAND_REGISTERS = 256
VECTOR_EXPAND_REGISTERS = 140
SHARED_MEMORY = 227 * 1024  # bytes that a block may have on Hopper
WARP = 32

WARPS = (2, 4, 8)
SPLITS = (1, 2, 4, 8, 16)
TALL_BLOCKS = (32, 64, 128)
VECTOR_BLOCKS = (1, 2, 4)
VECTOR_SPLITS = (1, 4, 8, 16)

Grids = tuple[dict[str, tuple[int, ...]], ...]
Choice = TypeVar("Choice")


class ShrinkTiles(NamedTuple):
    """What of a `Tiles` the shrink is launched with."""

    block_m: int
    splits: int
    warps: int
    shrink_n: int
    shrink_k: int
    shrink_stages: int

    @property
    def fits(self) -> bool:
        """Say whether sums and one step's operands fit registers, and the pipeline shared memory.

        Tensor cores: 16-bit operands, two to a register, in every stage. Vectors: a sum for each
        weight of a step, and the weights.
        """
        sums, weights = self.block_m * self.shrink_n, self.shrink_n * self.shrink_k
        rows, stages = self.block_m * self.shrink_k, self.shrink_stages
        if self.block_m < MIN_TILE:
            sums, rows, stages = self.block_m * weights, 0, 0
        held = sums + (rows + weights) / 2
        return (
            held <= SHRINK_REGISTERS * WARP * self.warps
            and 2 * stages * (rows + weights) <= SHARED_MEMORY
        )


class ExpandTiles(NamedTuple):
    """What of a `Tiles` the expand is launched with."""

    block_m: int
    splits: int
    warps: int
    expand_n: int
    expand_r: int

    @property
    def fits(self) -> bool:
        """Say whether the sums, y's tile, B's and the shrunk rows fit registers.

        The shrunk rows of some splits are on their way at the same time. Shared memory, which both
        operands pass through once, is never short.
        """
        sums, weights = self.block_m * self.expand_n, self.expand_n * self.expand_r
        if self.block_m < MIN_TILE:
            held, most = self.block_m * weights + weights / 2, VECTOR_EXPAND_REGISTERS
        else:
            planes = self.block_m * self.expand_r * (1 + self.splits / 2)
            held, most = 2 * sums + weights + planes, EXPAND_REGISTERS
        return held <= most * WARP * self.warps


SHORT_SHRINKS: Grids = (
    {"shrink_k": (64, 128, 256), "splits": SPLITS},
    {"shrink_k": (64, 128, 256), "shrink_stages": (2, 3, 4)},
    {"shrink_n": (16, 32, 64, 128), "warps": WARPS},
    {"splits": SPLITS, "warps": WARPS},
)
UNSPLIT_SHRINKS: Grids = ({"shrink_k": (64, 128, 256), "shrink_n": (16, 32, 64, 128)},)
TALL_SHRINKS: Grids = (
    {"block_m": TALL_BLOCKS, "shrink_n": (16, 32, 64, 128), "warps": (4, 8)},
    {"block_m": TALL_BLOCKS, "shrink_k": (32, 64, 128), "shrink_stages": (2, 3, 4)},
    {"block_m": TALL_BLOCKS, "splits": (1, 2, 4)},
)
VECTOR_SHRINKS: Grids = (
    {"shrink_n": (8, 16, 32)},
    {"shrink_k": (128, 256, 512)},
    {"splits": VECTOR_SPLITS, "warps": WARPS},
)
SHORT_EXPANDS: Grids = (
    {"expand_n": (32, 64, 128, 256), "warps": WARPS},
    {"expand_n": (64, 128), "expand_r": (16, 32, 64, 128)},
    {"expand_n": (64, 128), "splits": SPLITS, "warps": WARPS},
)
TALL_EXPANDS: Grids = (
    {"block_m": TALL_BLOCKS, "expand_n": (32, 64, 128, 256), "warps": (4, 8)},
    {"block_m": TALL_BLOCKS, "expand_r": (16, 32, 64)},
    {"block_m": TALL_BLOCKS, "splits": (1, 2, 4)},
)
VECTOR_EXPANDS: Grids = (
    {"expand_n": (32, 64, 128, 256)},
    {"expand_r": (16, 32, 64)},
    {"splits": VECTOR_SPLITS, "warps": WARPS},
)


def shrinks(*, in_features: int, max_rank: int, decode: bool) -> list[ShrinkTiles]:
    """List what is tried of the shrink; tall blocks are for prompts only."""
    found = _varied(
        (SHORT_SHRINKS, UNSPLIT_SHRINKS, TALL_SHRINKS, VECTOR_SHRINKS),
        in_features=in_features,
        max_rank=max_rank,
        decode=decode,
    )
    room = _room(max_rank)
    return [
        part
        for part in dict.fromkeys(map(shrink_part, found))
        if part.shrink_n <= room
        and part.splits <= max(1, in_features // part.shrink_k)
        and part.fits
    ]


def expands(*, in_features: int, max_rank: int, decode: bool) -> list[ExpandTiles]:
    """List what is tried of the expand, likewise."""
    found = _varied(
        (SHORT_EXPANDS, (), TALL_EXPANDS, VECTOR_EXPANDS),
        in_features=in_features,
        max_rank=max_rank,
        decode=decode,
    )
    room = _room(max_rank)
    return [
        part
        for part in dict.fromkeys(map(expand_part, found))
        if part.expand_r <= room and part.fits
    ]


def starts(*, in_features: int, max_rank: int) -> tuple[Tiles, Tiles, Tiles]:
    """Return what is chosen now: for short segments, for many of them, for long ones."""

    def chosen(mode: SgmvMode, rows: int, adapters: int | None) -> Tiles:
        return choose_tiles(
            mode, rows=rows, in_features=in_features, max_rank=max_rank, adapters=adapters
        )

    return (
        chosen(SgmvMode.INVARIANT, 16, None),
        chosen(SgmvMode.FAST, 2048, 2048),
        chosen(SgmvMode.FAST, 2048, 1),
    )


def shrink_part(tiles: Tiles) -> ShrinkTiles:
    """Take shrink's fields."""
    return ShrinkTiles(*(getattr(tiles, name) for name in ShrinkTiles._fields))


def expand_part(tiles: Tiles) -> ExpandTiles:
    """Take expand's fields."""
    return ExpandTiles(*(getattr(tiles, name) for name in ExpandTiles._fields))


def joined(
    shrink_times: Mapping[ShrinkTiles, float], expand_times: Mapping[ExpandTiles, float]
) -> dict[Tiles, float]:
    """Add up the times of the halves that can be one call's."""
    return {
        Tiles(**(shrink._asdict() | expand._asdict())): before + after
        for (shrink, before), (expand, after) in itertools.product(
            shrink_times.items(), expand_times.items()
        )
        if shrink[:3] == expand[:3]
    }


def best(tables: Iterable[Mapping[Choice, float]], count: int) -> list[Choice]:
    """Return the fastest over all tables by the geometric mean, of those that all of them have.

    Empty tables, of cases that failed as a whole, don't count.
    """
    filled = [table for table in tables if table]
    if not filled:
        return []
    common = [each for each in filled[0] if all(each in table for table in filled)]
    common.sort(key=lambda each: statistics.geometric_mean(table[each] for table in filled))
    return common[:count]


def label(choice: NamedTuple) -> str:
    """Name a choice as the CSV does."""
    return " ".join(f"{name}={value}" for name, value in choice._asdict().items())


def is_vector(tiles: Tiles) -> bool:
    """Say whether a choice is of the matrix-vector form."""
    return tiles.block_m < MIN_TILE


def _varied(
    grids: Sequence[Grids], *, in_features: int, max_rank: int, decode: bool
) -> list[Tiles]:
    """List the starts, then each grid's whole product, the other fields as in its start."""
    short, many, tall = starts(in_features=in_features, max_rank=max_rank)
    vectors = [
        matrix_vector_tiles(rows, in_features=in_features, max_rank=max_rank)
        for rows in VECTOR_BLOCKS
    ]
    of_short, of_many, of_tall, of_vectors = grids
    found = [short, *vectors, *_product(short, of_short), *_product(vectors[-1], of_vectors)]
    if decode:
        return [*found, *_product(vectors[0], of_vectors)]
    return [*found, many, tall, *_product(many, of_many), *_product(tall, of_tall)]


def _product(start: Tiles, grids: Grids) -> Iterator[Tiles]:
    for grid in grids:
        for values in itertools.product(*grid.values()):
            yield start._replace(**dict(zip(grid, values, strict=True)))


def _room(max_rank: int) -> int:
    return max(MIN_TILE, 1 << (max_rank - 1).bit_length())
