"""What the sweep of `sgmv_`'s tiles says: by form, kind of batch, width of x and rank."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING

from aril.kernels.sgmv.tiles import MIN_TILE
from benchmarks.gpu.candidates import best, label
from benchmarks.gpu.cases import RANKS
from benchmarks.gpu.choices import Verdict, compare, show
from benchmarks.gpu.screening import rows_of
from benchmarks.gpu.sweep_sgmv import (
    INVARIANT,
    QUESTION,
    TENSOR_CORES,
    VECTORS,
    Sweep,
    cases_of,
    current,
)
from benchmarks.gpu.timing import IN_A_GRAPH

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from benchmarks.gpu.results import Results
    from benchmarks.gpu.workloads import Case, Layer
    from benchmarks.record import Row

    Table = dict[str, Row]
    TimesOf = Callable[[Case], Table]


def recommend(
    layers: Sequence[Layer], timed: TimesOf
) -> tuple[list[Verdict], dict[tuple[str, int], list[Verdict | None]]]:
    """Compare the best with what is chosen now; and vectors with tensor cores, for each decode.

    `layers` is every group of linears that may have been measured, `timed` what was of a case. The
    second part has a comparison for each rank and width, None where a figure is missing, by kind of
    decode and rows.
    """
    choices: list[Verdict | None] = []
    forms: dict[tuple[str, int], list[Verdict | None]] = {}
    for rank in RANKS:
        for width in dict.fromkeys(layer.in_features for layer in layers):
            kin = [cases_of(layer, rank) for layer in layers if layer.in_features == width]
            of = f"{width} features, rank {rank}"
            tables = [timed(case) for cases in kin for case in cases]
            if not any(tables):
                continue
            names = [label(current(case)[INVARIANT]) for cases in kin for case in cases]
            for cases in zip(*kin, strict=True):
                own = [timed(case) for case in cases]
                kind = f"{cases[0].workload}, {cases[0].rows} rows; {of}"
                choices.append(_of_form(TENSOR_CORES, kind, cases, own))
                if cases[0].decode:
                    choices.append(_of_form(VECTORS, kind, cases, own))
                    between = _between_forms(kind, own)
                    forms.setdefault((cases[0].workload, cases[0].rows), []).append(between)
            choices.append(compare(f"{INVARIANT}; every batch; {of}", tables, names))
    return [each for each in choices if each], forms


def vector_rows(forms: Mapping[tuple[str, int], Sequence[Verdict | None]]) -> int:
    """Return `MATRIX_VECTOR_ROWS`: up to which batch vectors won every comparison.

    `fast` chooses by rows alone, so one kind of batch, width or rank that they don't win is enough.
    """
    up_to = 0
    for rows in sorted({rows for _, rows in forms}):
        found = [each for (_, own), all_of in forms.items() if own == rows for each in all_of]
        if not all(each is not None and each.beyond for each in found):
            break
        up_to = rows
    return up_to


def warps_apart(sweep: Sweep) -> float:
    """Return what separate warps for shrink and expand would leave of the time, as screened.

    The geometric mean over the cases that were screened; NaN for none.
    """
    shares = []
    for case in (case for cases in sweep.groups() for case in cases):
        before, after = sweep.screened(case)
        together = sweep.predicted(case)
        apart = [
            shrunk + added
            for part, shrunk in before.items()
            for other, added in after.items()
            if part[:2] == other[:2]
        ]
        if together and apart:
            shares.append(min(apart) / min(together.values()))
    return statistics.geometric_mean(shares) if shares else math.nan


def report(results: Results, layers: Sequence[Layer]) -> None:
    """Print what all runs so far say, those that this one resumed among them.

    `layers` as in `recommend`.
    """
    choices, forms = recommend(layers, lambda case: rows_of(results, QUESTION, case, IN_A_GRAPH))
    show(choices, "Tiles")
    print("\nthe best vectors over the best tensor cores")
    for found in forms.values():
        for each in found:
            if each is not None:
                said = "beyond the spread" if each.beyond else ""
                print(f"  {each.of:56} {each.over:5.3f}  {said}")
    print(f"MATRIX_VECTOR_ROWS = {vector_rows(forms)}  # by the decodes that were measured")
    sweep = Sweep(results, layers, RANKS, repetitions=0)
    share = warps_apart(sweep)
    if not math.isnan(share):
        print(f"warps of their own for shrink and expand would leave {share:.3f}, as screened")


def is_vector_label(name: str) -> bool:
    """Say whether a row's candidate is of the matrix-vector form."""
    return int(name.split(maxsplit=1)[0].removeprefix("block_m=")) < MIN_TILE


def _of_form(
    form: str, kind: str, cases: Sequence[Case], tables: Sequence[Table]
) -> Verdict | None:
    return compare(
        f"{form}; {kind}",
        tables,
        [label(current(case)[form]) for case in cases],
        among=lambda name: is_vector_label(name) is (form == VECTORS),
    )


def _between_forms(kind: str, tables: Sequence[Table]) -> Verdict | None:
    """Take the best of each form that all layers have."""
    filled = [table for table in tables if table]
    medians = [
        {name: row.p50 for name, row in table.items() if not is_vector_label(name)}
        for table in filled
    ]
    fastest = best(medians, 1) * len(filled)
    return compare(kind, filled, fastest, among=is_vector_label) if fastest else None
