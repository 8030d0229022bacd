"""Measures tile choices of `sgmv_`: what `kernels/sgmv/tiles.py` should say, and by how much.

    python -m benchmarks.gpu --sweep sgmv    # writes sgmv_tiles.csv

Shrink and expand are screened apart (see `candidates`), on every group of linears at one rank; then
the best whole calls are timed beside what is chosen now. Finalists come from three rankings, so
that a choice can be named for a kind of batch on all layers of one width (`fast`) and for every
batch (`invariant`). Both forms are tried: tensor cores, and matrix by vectors.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

from aril.kernels.sgmv import SgmvMode
from aril.kernels.sgmv.tiles import choose_tiles, matrix_vector_tiles
from benchmarks.gpu.candidates import best, expands, is_vector, joined, label, shrinks, starts
from benchmarks.gpu.checks import examine
from benchmarks.gpu.cost import cost_of
from benchmarks.gpu.halves import Halves
from benchmarks.gpu.problem import make_problem
from benchmarks.gpu.providers import Sgmv
from benchmarks.gpu.screening import SCREENED, Screening, passes, rows_of, time_calls
from benchmarks.gpu.timing import IN_A_GRAPH, sets_needed
from benchmarks.gpu.workloads import LLAMA_8B, TINY, Workload, decode_case, prefill_case

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from aril.kernels.sgmv.tiles import Tiles
    from benchmarks.gpu.candidates import ExpandTiles, ShrinkTiles
    from benchmarks.gpu.results import Results
    from benchmarks.gpu.trial import Trial
    from benchmarks.gpu.workloads import Case, Layer

QUESTION = "sgmv_tiles"
SHRINK = "shrink alone, screened"
EXPAND = "expand alone, screened"
RANKS = (16, 64)
# Those that tell most first: three slices; the widest rows of A; the widest outputs.
LAYERS = (LLAMA_8B[0], LLAMA_8B[3], LLAMA_8B[2], LLAMA_8B[1])
# Finalists: of a case, of its kind on layers as wide, of all cases there.
OWN = ALIKE = ANYWHERE = 4
TENSOR_CORES, VECTORS, INVARIANT = "tensor cores", "vectors", "invariant"


def cases_of(layer: Layer, rank: int) -> list[Case]:
    """List the kinds of batch that a choice may depend on, the same for every layer."""
    if layer in TINY:
        return [
            decode_case(Workload.UNIFORM, layer, 3, rank, dtype="float16"),
            prefill_case(layer, [5, 3], rank=rank, dtype="float16"),
        ]
    return [
        *(decode_case(Workload.UNIFORM, layer, rows, rank) for rows in (64, 1, 16, 4)),
        *(decode_case(Workload.DISTINCT, layer, rows, rank) for rows in (64, 16)),
        prefill_case(layer, [2048], rank=rank),
        prefill_case(layer, [256, 256], rank=rank),
        prefill_case(layer, [16] * 32, rank=rank),  # many short segments
    ]


def current(case: Case) -> dict[str, Tiles]:
    """Return what is chosen now for a case: by `fast` in each form, and by `invariant`."""
    in_features, max_rank = case.layer.in_features, max(case.ranks)
    fast, invariant = (
        choose_tiles(
            mode,
            rows=case.rows,
            in_features=in_features,
            max_rank=max_rank,
            adapters=len(case.segments),
        )
        for mode in (SgmvMode.FAST, SgmvMode.INVARIANT)
    )
    vectors = matrix_vector_tiles(case.rows, in_features=in_features, max_rank=max_rank)
    return {
        TENSOR_CORES: invariant if is_vector(fast) else fast,
        VECTORS: vectors,
        INVARIANT: invariant,
    }


class Sweep(Screening["Case"]):
    """The groups of linears of one command at some ranks."""

    question = QUESTION
    screened_as = EXPAND

    def __init__(
        self, results: Results, layers: Sequence[Layer], ranks: Sequence[int], *, repetitions: int
    ) -> None:
        super().__init__(results, repetitions=repetitions)
        self.layers = layers
        self.ranks = ranks
        self._predicted: dict[tuple[str, int], dict[Tiles, float]] = {}

    def groups(self) -> list[list[Case]]:
        """List the cases rank by rank."""
        return [
            [case for layer in self.layers for case in cases_of(layer, rank)] for rank in self.ranks
        ]

    def kernels(self, case: Case) -> Iterator[tuple[int, int, object]]:
        """Name the halves; layers of as many slices share them."""
        before, after = self.parts(case)
        return ((len(case.layer.widths), max(case.ranks), part) for part in (*before, *after))

    def most_finalists(self, case: Case) -> int:
        """Count the rankings' places, and what is there."""
        return (OWN + ALIKE) * (2 if case.decode else 1) + ANYWHERE + 3

    def parts(self, case: Case) -> tuple[list[ShrinkTiles], list[ExpandTiles]]:
        """List what is screened; in a rehearsal a few of those that fit each other."""
        in_features, max_rank = case.layer.in_features, max(case.ranks)
        before = shrinks(in_features=in_features, max_rank=max_rank, decode=case.decode)
        after = expands(in_features=in_features, max_rank=max_rank, decode=case.decode)
        if self.results.rehearsal:
            shared = [
                (tiles.block_m, tiles.splits, tiles.warps) for tiles in current(case).values()
            ]
            before = [part for part in before if part[:3] in shared][:4]
            after = [part for part in after if part[:3] in shared][:4]
        return before, after

    def predicted(self, case: Case) -> dict[Tiles, float]:
        """Return the sum of both halves' times, in microseconds, where both were screened."""
        key = (case.config, case.rows)
        if key not in self._predicted:
            self._predicted[key] = joined(*self.screened(case))
        return self._predicted[key]

    def screened(self, case: Case) -> tuple[dict[ShrinkTiles, float], dict[ExpandTiles, float]]:
        """Return the times of the halves, in microseconds."""
        before, after = self.parts(case)
        shrunk = rows_of(self.results, QUESTION, case, SHRINK)
        added = rows_of(self.results, QUESTION, case, EXPAND)
        return (
            {part: shrunk[name].p50 for part in before if (name := _shrink_name(part)) in shrunk},
            {part: added[name].p50 for part in after if (name := _expand_name(part)) in added},
        )

    def finalists(self, case: Case) -> list[Tiles]:
        """Take what is chosen now, and the best of the case, of its kind and of all cases."""
        in_features, rank = case.layer.in_features, max(case.ranks)
        kin = [
            each
            for layer in self.layers
            if layer.in_features == in_features
            for each in cases_of(layer, rank)
        ]
        alike = [each for each in kin if (each.workload, each.rows) == (case.workload, case.rows)]
        usual = starts(in_features=in_features, max_rank=rank)
        found = [*current(case).values(), *(usual[:2] if case.decode else usual)]
        # Vectors are for decodes; a prompt takes them only as the one choice for every batch.
        for vectors in (False, True) if case.decode else (False,):
            found += best([_of_form(self.predicted(case), vectors=vectors)], OWN)
            found += best(
                (_of_form(self.predicted(each), vectors=vectors) for each in alike), ALIKE
            )
        found += best(map(self.predicted, kin), ANYWHERE)
        return list(dict.fromkeys(found))

    def _halves(self, case: Case) -> Halves:
        count = sets_needed(cost_of(case).bytes, self.results.device)
        return Halves(
            [make_problem(case, self.results.device, seed=2 + number) for number in range(count)]
        )

    def screen(self, case: Case, trial: Trial) -> None:
        """Time the halves apart."""
        before, after = self.parts(case)
        print(f"\n{case.config}; {case.rows} rows: {len(before)} shrinks, {len(after)} expands")
        halves = self._halves(case)
        repetitions = min(SCREENED, self.repetitions)
        shrunk = {
            name: halves.shrink(part)
            for part in before
            if passes(trial, name := _shrink_name(part), partial(halves.shrink_error, part))
        }
        added = {
            name: halves.expand(part)
            for part in after
            if passes(trial, name := _expand_name(part), partial(halves.expand_error, part))
        }
        time_calls(shrunk, trial, SHRINK, repetitions=repetitions)
        time_calls(added, trial, EXPAND, repetitions=repetitions)

    def final(self, case: Case, trial: Trial) -> None:
        """Time whole calls."""
        halves = self._halves(case)
        finalists = self.finalists(case)
        print(f"\n{case.config}; {case.rows} rows: {len(finalists)} finalists")
        calls = {
            name: halves.whole(tiles)
            for tiles in finalists
            if passes(trial, name := label(tiles), partial(_whole_error, tiles, halves))
        }
        time_calls(calls, trial, IN_A_GRAPH, repetitions=self.repetitions)
        self.show(case, {form: label(tiles) for form, tiles in current(case).items()})


def _shrink_name(part: ShrinkTiles) -> str:
    return f"shrink {label(part)}"


def _expand_name(part: ExpandTiles) -> str:
    return f"expand {label(part)}"


def _of_form(times: Mapping[Tiles, float], *, vectors: bool) -> dict[Tiles, float]:
    return {tiles: took for tiles, took in times.items() if is_vector(tiles) is vectors}


def _whole_error(tiles: Tiles, halves: Halves) -> float:
    """Examine a whole call against fp64 and whole numbers; above 1 is wrong."""
    verdict = examine(Sgmv(SgmvMode.INVARIANT, tiles), halves.pool[0], runs=1, alone=0)
    return 0.0 if verdict.wrong is None else math.inf
