"""The operator's table: each provider examined, then timed, over one list of cases.

python -m benchmarks.gpu --only sgmv    # writes sgmv_gpu.csv
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from benchmarks.gpu.cases import counted_cases, only_in_the_grid
from benchmarks.gpu.checks import examine
from benchmarks.gpu.cost import cost_of
from benchmarks.gpu.problem import make_problem
from benchmarks.gpu.providers import refusal
from benchmarks.gpu.timing import (
    EAGER,
    IN_A_GRAPH,
    eager_times,
    graph_times,
    launches,
    sets_needed,
)
from benchmarks.gpu.trial import BANDWIDTH, SHARE, Report, measure_each
from benchmarks.gpu.workloads import LLAMA_8B, PUNICA

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Sequence

    from aril.kernels.sgmv.cost import Roofs
    from benchmarks.gpu.checks import Verdict
    from benchmarks.gpu.problem import Problem
    from benchmarks.gpu.providers import Provider
    from benchmarks.gpu.results import Results
    from benchmarks.gpu.trial import Trial
    from benchmarks.gpu.workloads import Case

QUESTION = "sgmv_gpu"
# Looking at the bits compiles anew for one row; one slice and three are all that differ.
CLOSELY = (PUNICA, LLAMA_8B[0])


def measure(
    cases: Sequence[Case],
    providers: Sequence[Provider],
    results: Results,
    roofs: Roofs,
    *,
    deadline: float,
    repetitions: int,
) -> int:
    """Examine and time every provider on every case; return how many are left at the deadline."""
    one = partial(
        _measure_case,
        providers=providers,
        roofs=roofs,
        repetitions=repetitions,
        grid=only_in_the_grid(),
    )
    return measure_each(QUESTION, cases, one, results, deadline=deadline, providers=providers)


def count_launches(
    cases: Sequence[Case], providers: Sequence[Provider], results: Results, *, deadline: float
) -> int:
    """Count what each timed provider puts on the GPU; nothing can be timed afterwards."""

    def one(case: Case, trial: Trial) -> None:
        print(f"\nlaunches of {case.config}; {case.rows} rows")
        problem = make_problem(case, results.device)
        for provider in providers:
            if trial.leaves_out(provider.name, None) or not results.done(
                QUESTION, case.config, case.rows, IN_A_GRAPH, provider.name
            ):
                continue
            with trial.guard(provider.name):
                count = launches(provider.bind(problem, provider.plan(problem)))
                trial.note(provider.name, "launches", [count], "1")
                print(f"  {provider.name:24} {count}")

    timed = [
        case
        for case in counted_cases()
        if case in cases and results.done(QUESTION, case.config, case.rows, IN_A_GRAPH)
    ]
    return measure_each(
        QUESTION, timed, one, results, deadline=deadline, metric="launches", providers=providers
    )


def _measure_case(
    case: Case,
    trial: Trial,
    *,
    providers: Sequence[Provider],
    roofs: Roofs,
    repetitions: int,
    grid: Container[tuple[str, int]],
) -> None:
    """Examine, then time; what is only in the grid without plans and what follows from times."""
    device = trial.device
    brief = (case.config, case.rows) in grid
    moved = cost_of(case).bytes
    report = Report(trial, roofs, moved, kept=() if brief else (BANDWIDTH, SHARE))
    sets = sets_needed(moved, device)
    problem = make_problem(case, device)
    print(f"\n{case.config}; {case.rows} rows; {moved / 1e6:.2f} MB a call, {sets} sets")
    admitted = [provider for provider in providers if _admit(provider, problem, trial)]
    # All add to the same y: what is in it costs no time.
    pool = [make_problem(case, device, seed=2 + number) for number in range(sets)]
    calls: dict[str, list[Callable[[], None]]] = {}
    plans: dict[str, list[Callable[[], None]]] = {}
    for provider in admitted:
        with trial.guard(provider.name):
            plan = provider.plan(problem)
            calls[provider.name] = [provider.bind(own, plan) for own in pool]
            plans[provider.name] = [partial(provider.replan, problem, plan)]
    failed = trial.drops(calls, plans)
    if device.type == "cuda":
        report.add(IN_A_GRAPH, graph_times(calls, repetitions=repetitions, failed=failed))
    eager = partial(eager_times, device=device, failed=failed)
    report.add(EAGER, eager(calls, repetitions=repetitions, at_once=20 if sets > 1 else 1))
    if not brief:
        few = max(1, repetitions // 4)
        report.add("plan, once a step", eager(plans, repetitions=few, at_once=1))


def _admit(provider: Provider, problem: Problem, trial: Trial) -> bool:
    """Examine a provider, and say whether it may be timed."""
    if trial.leaves_out(provider.name, refusal(provider, problem)):
        return False
    rehearsal = trial.results.rehearsal
    closely = problem.case.layer in CLOSELY and not rehearsal
    with trial.guard(provider.name):
        verdict = examine(
            provider,
            problem,
            runs=3 if closely else 1,
            alone=3 if closely else int(rehearsal),
        )
        return _judge(provider, verdict, trial)
    return False


def _judge(provider: Provider, verdict: Verdict, trial: Trial) -> bool:
    if verdict.wrong is not None:
        print(f"  {provider.name:24} WRONG: {verdict.wrong}")
        trial.note(provider.name, "wrong", [verdict.error], "1")
        return False
    if provider.bound_only:
        return True
    trial.note(provider.name, "largest error of a row", [verdict.error], "1")
    line = f"  {provider.name:24} right, off by {verdict.error:.2g}"
    for metric, said in (
        ("deterministic", verdict.deterministic),
        ("row-invariant", verdict.row_invariant),
    ):
        if said is not None:
            trial.note(provider.name, metric, [float(said)], "1")
            line += f"; {metric}: {'yes' if said else 'no'}"
    print(line)
    return True
