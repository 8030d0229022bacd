"""What the sweep of attention's tiles says: a pair for both modes, and the rest within it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from benchmarks.gpu.candidates import label
from benchmarks.gpu.choices import Verdict, compare, show
from benchmarks.gpu.screening import rows_of
from benchmarks.gpu.sweep_attention import QUESTION, current, kind_of
from benchmarks.gpu.timing import IN_A_GRAPH

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.gpu.results import Results
    from benchmarks.gpu.sequences import Shape
    from benchmarks.record import Row

    Table = dict[str, Row]


def recommend(shapes: Sequence[Shape], timed: Callable[[Shape], Table]) -> list[Verdict]:
    """Compare with what is chosen now: pairs of `split` and `block_n` first, then what is left.

    The others are compared within the pair that is to be: today's, unless another one is faster
    over all shapes by more than the spread.
    """
    found: list[Verdict | None] = []
    for dim in dict.fromkeys(shape.dim for shape in shapes):
        measured = {
            shape: table for shape in shapes if shape.dim == dim and (table := timed(shape))
        }
        if not measured:
            continue
        fast = {shape: label(current(shape, invariant=False)) for shape in measured}
        of = f"heads of {dim}"
        pairs = compare(
            f"both modes; split and block_n; {of}",
            [_by_pair(table) for table in measured.values()],
            [_pair_label(name) for name in fast.values()],
        )
        found.append(pairs)
        pair = _pair_label(next(iter(fast.values())))
        if pairs is not None and pairs.beyond:
            pair = pairs.winner
        within = partial(_is_of_pair, pair)
        for kind in dict.fromkeys(map(kind_of, measured)):
            own = [shape for shape in measured if kind_of(shape) == kind]
            tables, names = [measured[shape] for shape in own], [fast[shape] for shape in own]
            found.append(compare(f"fast; {kind}; {of}", tables, names, among=within))
        names = [label(current(shape, invariant=True)) for shape in measured]
        tables = list(measured.values())
        found.append(compare(f"invariant; every batch; {of}", tables, names, among=within))
    return [each for each in found if each]


def report(results: Results, shapes: Sequence[Shape]) -> None:
    """Print what all runs so far say, those that this one resumed among them."""
    show(
        recommend(shapes, lambda shape: rows_of(results, QUESTION, shape, IN_A_GRAPH)),
        "AttentionTiles",
    )


def _pair_label(name: str) -> str:
    return " ".join(part for part in name.split() if part.startswith(("split=", "block_n=")))


def _is_of_pair(pair: str, name: str) -> bool:
    return _pair_label(name) == pair


def _by_pair(table: Table) -> Table:
    """Keep the fastest row of each pair, under the pair's name."""
    found: Table = {}
    for name, row in table.items():
        pair = _pair_label(name)
        if pair not in found or row.p50 < found[pair].p50:
            found[pair] = replace(row, provider=pair)
    return found
