"""Measures tile choices of paged attention: what `kernels/attention/launch.py` should say.

    python -m benchmarks.gpu --sweep attention    # writes attention_tiles.csv

`split` and `block_n` decide the order of a row's sum, so one pair of them is for every step of both
modes; height, warps and stages may differ between decodes and prompts in `fast`. Each candidate is
held against fp64 before it is timed.
"""

from __future__ import annotations

import itertools
from functools import partial
from typing import TYPE_CHECKING

from aril.kernels.attention.tiles import AttentionTiles, choose_tiles
from benchmarks.gpu.candidates import WARP, best, label
from benchmarks.gpu.problem import TOLERANCE, row_error
from benchmarks.gpu.screening import SCREENED, Screening, passes, rows_of, time_calls
from benchmarks.gpu.sequences import Shape, make_problem, tiny_shapes
from benchmarks.gpu.timing import IN_A_GRAPH, sets_needed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from benchmarks.gpu.results import Results
    from benchmarks.gpu.sequences import Problem
    from benchmarks.gpu.trial import Trial

QUESTION = "attention_tiles"
SCREEN = "screened"
DIMS = (128, 64)
OWN, ALIKE, ANYWHERE = 4, 4, 3

BLOCK_N = (32, 64, 128)
SPLIT = (256, 512, 1024)
# Found by compiling all around it for Hopper: numbers that a thread may hold before it spills.
REGISTERS = 176
MATRIX_GROUP = 64  # rows from which a product takes wgmma, whose other operand lies in memory
# Tall blocks: one, see `AttentionTiles`. Else how often keys and values are in flight: the page's
# number is a load of its own, which takes stages too, so 3 and 4 make the same code, as 5 and 6 do.
STAGES = (2, 3, 5, 7)


def shapes_of(dim: int) -> list[Shape]:
    """List the batches, those that tell most first."""
    decodes = ((64, 2048), (1, 8192), (16, 2048), (64, 512), (1, 512), (16, 8192), (1, 32768))
    return [
        *(Shape(f"Decode {rows} x {keys}", ((1, keys),) * rows, dim=dim) for rows, keys in decodes),
        Shape("Prefill 1 x 2048", ((2048, 2048),), dim=dim),
        Shape("Prefill 4 x 512", ((512, 512),) * 4, dim=dim),
        Shape("Prefill 1 x 512", ((512, 512),), dim=dim),
        Shape("Mixed 32 x 2048 and 512", (*((1, 2048),) * 32, (512, 512)), dim=dim),
        Shape("Decode 64 x 32768", ((1, 32768),) * 64, dim=dim),
    ]


def kind_of(shape: Shape) -> str:
    """Name what of a batch a choice may depend on: the first word of its name."""
    return shape.name.split()[0]


def fits(tiles: AttentionTiles, dim: int) -> bool:
    """Say whether a split's result, all splits', the scores and the values fit registers."""
    held = (2 * dim + tiles.block_n) * tiles.block_m
    if tiles.block_m < MATRIX_GROUP:
        held += dim * tiles.block_n
    return held <= REGISTERS * WARP * tiles.warps


def candidates(shape: Shape) -> list[AttentionTiles]:
    """List what is tried; a decode has no use for more rows than a group of heads."""
    heights = (16,) if kind_of(shape) == "Decode" else (16, 32, 64, 128)
    found = [
        AttentionTiles(block_m, block_n, split, warps, stages)
        for block_m, warps, block_n, split in itertools.product(heights, (4, 8), BLOCK_N, SPLIT)
        for stages in (STAGES if block_m < MATRIX_GROUP else (1,))
    ]
    return [tiles for tiles in found if fits(tiles, shape.dim)]


def current(shape: Shape, *, invariant: bool) -> AttentionTiles:
    """Return what is chosen now."""
    return choose_tiles(
        rows=shape.rows,
        seqs=len(shape.sequences),
        group=shape.heads // shape.kv_heads,
        dim=shape.dim,
        tall=not invariant,
    )


def pair_of(tiles: AttentionTiles) -> tuple[int, int]:
    """Return the two fields that decide bits."""
    return tiles.split, tiles.block_n


class AttentionSweep(Screening[Shape]):
    """Some shapes, one size of heads after the other."""

    question = QUESTION
    screened_as = SCREEN

    def __init__(self, results: Results, shapes: Sequence[Shape], *, repetitions: int) -> None:
        super().__init__(results, repetitions=repetitions)
        self.shapes = shapes
        self._screened: dict[Shape, dict[AttentionTiles, float]] = {}

    def groups(self) -> list[list[Shape]]:
        """List the shapes by the size of heads."""
        dims = dict.fromkeys(shape.dim for shape in self.shapes)
        return [[shape for shape in self.shapes if shape.dim == dim] for dim in dims]

    def kernels(self, case: Shape) -> Iterator[tuple[int, AttentionTiles]]:
        """Name the candidates; shapes with heads of one size share them."""
        return ((case.dim, tiles) for tiles in self.tried(case))

    def most_finalists(self, case: Shape) -> int:  # noqa: ARG002 - alike for all
        """Count the rankings' places, a pair's best, and what is there."""
        return OWN + ALIKE + ANYWHERE + len(BLOCK_N) * len(SPLIT) + 2

    def tried(self, shape: Shape) -> list[AttentionTiles]:
        """List the candidates; a few in a rehearsal, where a split is longer than the keys."""
        found = candidates(shape)
        return found[:2] + found[-1:] if self.results.rehearsal else found

    def screened(self, shape: Shape) -> dict[AttentionTiles, float]:
        """Return the times of a shape's candidates, in microseconds."""
        if shape not in self._screened:
            rows = rows_of(self.results, QUESTION, shape, SCREEN)
            self._screened[shape] = {
                tiles: rows[label(tiles)].p50 for tiles in self.tried(shape) if label(tiles) in rows
            }
        return self._screened[shape]

    def finalists(self, shape: Shape) -> list[AttentionTiles]:
        """Take what is there, and the best of the shape, of its kind, of all, and of each pair."""
        kin = [each for each in self.shapes if each.dim == shape.dim]
        alike = [each for each in kin if kind_of(each) == kind_of(shape)]
        found = [current(shape, invariant=False), current(shape, invariant=True)]
        found += best([self.screened(shape)], OWN)
        found += best(map(self.screened, alike), ALIKE)
        found += best(map(self.screened, kin), ANYWHERE)
        for pair in dict.fromkeys(map(pair_of, self.screened(shape))):
            own = [
                {
                    tiles: took
                    for tiles, took in self.screened(each).items()
                    if pair_of(tiles) == pair
                }
                for each in alike
            ]
            found += best(own, 1)
        return list(dict.fromkeys(found))

    def screen(self, case: Shape, trial: Trial) -> None:
        """Time all."""
        self._time(case, self.tried(case), trial, SCREEN, min(SCREENED, self.repetitions))

    def final(self, case: Shape, trial: Trial) -> None:
        """Time the finalists."""
        self._time(case, self.finalists(case), trial, IN_A_GRAPH, self.repetitions)
        modes = {"fast": False, "invariant": True}
        self.show(case, {name: label(current(case, invariant=on)) for name, on in modes.items()})

    def _time(
        self,
        shape: Shape,
        tried: Sequence[AttentionTiles],
        trial: Trial,
        metric: str,
        repetitions: int,
    ) -> None:
        print(f"\n{shape.config}; {len(tried)} candidates, {metric}")
        count = sets_needed(shape.bytes, trial.device)
        pool = [make_problem(shape, trial.device, seed=1 + number) for number in range(count)]
        exact = pool[0].exact()
        calls = {
            name: [partial(_attend, own, tiles) for own in pool]
            for tiles in tried
            if passes(trial, name := label(tiles), partial(_error, pool[0], tiles, exact))
        }
        time_calls(calls, trial, metric, repetitions=repetitions)


def every_shape(*, rehearsal: bool) -> list[Shape]:
    """List what there is to measure."""
    return [*tiny_shapes()] if rehearsal else [shape for dim in DIMS for shape in shapes_of(dim)]


def _attend(problem: Problem, tiles: AttentionTiles) -> None:
    problem.attend(tiles=tiles)


def _error(problem: Problem, tiles: AttentionTiles, exact: Tensor) -> float:
    """Return the largest ‖got - exact‖ / ‖exact‖ of a row, in units of what may be."""
    got = problem.attend(tiles=tiles)
    return row_error(got, exact) / TOLERANCE[got.dtype]
