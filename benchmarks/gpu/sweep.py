"""Tile choices of our kernels: `python -m benchmarks.gpu --sweep`, see `screening`.

Measures what is left of the tables `sgmv_tiles` and `attention_tiles`, then says what they mean so
far: which choices win by more than the spread, ready to be pasted.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from benchmarks.gpu import attention_choices, sgmv_choices, sweep_attention, sweep_sgmv
from benchmarks.gpu.sweep_attention import AttentionSweep
from benchmarks.gpu.sweep_sgmv import Sweep
from benchmarks.gpu.workloads import TINY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.gpu.results import Results

ALL, SGMV, ATTENTION = "all", "sgmv", "attention"


def measure(
    results: Results,
    which: str,
    *,
    names: Sequence[str],
    ranks: Sequence[int],
    deadline: float,
    minutes: float,
    repetitions: int,
) -> int:
    """Measure until the deadline, print what to choose, and return how many cases are left.

    `names` are parts of names of groups of linears or of attention's shapes, all for none given.
    `minutes` is what the commands to come have, for the estimate. Exits where a name is of nothing.
    """
    tiny = results.rehearsal
    layers = TINY[1:] if tiny else sweep_sgmv.LAYERS
    shapes = sweep_attention.every_shape(rehearsal=tiny)
    for name in names:
        if not any(_named([name], each.name) for each in (*layers, *shapes)):
            sys.exit(f"no group of linears and no shape of attention is named {name!r}")
    left = 0
    layers_wanted = [layer for layer in layers if _named(names, layer.name)]
    if which != ATTENTION and layers_wanted:
        ranks = ranks or (sweep_sgmv.RANKS[:1] if tiny else sweep_sgmv.RANKS)
        sweep = Sweep(results, layers_wanted, ranks, repetitions=repetitions)
        left += sweep.run(deadline=deadline, minutes=minutes)
    shapes_wanted = [shape for shape in shapes if _named(names, shape.name)]
    if which != SGMV and shapes_wanted:
        attention = AttentionSweep(results, shapes_wanted, repetitions=repetitions)
        left += attention.run(deadline=deadline, minutes=minutes)
    # What was measured before is judged too, also where this command had other shapes.
    if results.own(sweep_sgmv.QUESTION):
        sgmv_choices.report(results, layers)
    if results.own(sweep_attention.QUESTION):
        attention_choices.report(results, shapes)
    return left


def _named(names: Sequence[str], name: str) -> bool:
    return not names or any(part.lower() in name.lower() for part in names)
