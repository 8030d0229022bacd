"""What must be known of a provider before it is timed: is it right, and how far can it be trusted.

Nothing here measures time. A provider that is wrong is reported and left out of the timing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from benchmarks.gpu.problem import TOLERANCE, make_problem, row_error

if TYPE_CHECKING:
    from torch import Tensor

    from benchmarks.gpu.problem import Problem
    from benchmarks.gpu.providers import Provider


@dataclass(frozen=True)
class Verdict:
    """`wrong` says what is wrong, else None; the other two are None where nobody looked."""

    wrong: str | None
    error: float = float("nan")
    deterministic: bool | None = None
    row_invariant: bool | None = None


def result(provider: Provider, problem: Problem) -> Tensor:
    """Run one call on a copy of y."""
    own = problem.fresh()
    provider.bind(own, provider.plan(own))()
    return own.y


def examine(provider: Provider, problem: Problem, *, runs: int = 3, alone: int = 3) -> Verdict:
    """Compare with fp64 and with whole numbers that must come out exact; then look at the bits.

    `runs` is how often the same call is made, `alone` how many rows are also computed apart.
    """
    if provider.bound_only and len(set(problem.case.row_slots)) > 1:
        return Verdict(None)
    got = result(provider, problem)
    exact = problem.exact()
    worst = row_error(got, exact)
    if not worst <= TOLERANCE[problem.x.dtype]:
        return Verdict(f"a row is off by {worst:.3g} of its length", worst)
    untouched = (problem.row_slots < 0).to(got.device)
    if not torch.equal(got[untouched], problem.y[untouched]):
        return Verdict("rows without adapter changed", worst)
    whole = make_problem(problem.case, problem.device, seed=1, integers=True)
    if not torch.equal(result(provider, whole).double(), whole.exact()):
        return Verdict("whole numbers did not come out exact", worst)
    again = [torch.equal(result(provider, problem), got) for _ in range(runs - 1)]
    return Verdict(
        None,
        worst,
        deterministic=all(again) if again else None,
        row_invariant=_row_invariant(provider, problem, got, alone) if alone else None,
    )


def _row_invariant(provider: Provider, problem: Problem, together: Tensor, most: int) -> bool:
    """Say whether rows have the same bits alone as in the batch."""
    last = len(problem.x) - 1
    for row in sorted({0, last // 2, last})[:most]:
        alone = problem.on_rows([row])
        if provider.refuses(alone) or not torch.equal(result(provider, alone)[0], together[row]):
            return False
    return True
