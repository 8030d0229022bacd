"""The operator's table: each provider examined, then timed, over one list of cases."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from benchmarks.gpu.cases import counted_cases, only_in_the_grid
from benchmarks.gpu.checks import examine
from benchmarks.gpu.problem import make_problem
from benchmarks.gpu.providers import refusal
from benchmarks.gpu.timing import eager_times, graph_times, launches, sets_needed
from benchmarks.gpu.trial import measure_each
from benchmarks.gpu.workloads import LLAMA_8B, PUNICA
from kernels.sgmv.cost import sgmv_cost

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.gpu.checks import Verdict
    from benchmarks.gpu.problem import Problem
    from benchmarks.gpu.providers import Provider
    from benchmarks.gpu.results import Results
    from benchmarks.gpu.trial import Trial
    from benchmarks.gpu.workloads import Case
    from kernels.sgmv.cost import Cost, Roofs

QUESTION = "sgmv_gpu"
IN_A_GRAPH = "time in a graph"
# Looking at the bits compiles anew for one row; one slice and three are all that differ.
CLOSELY = (PUNICA, LLAMA_8B[0])


def cost_of(case: Case) -> Cost:
    """Count one call."""
    return sgmv_cost(
        case.segments,
        case.slice_ranks,
        in_features=case.layer.in_features,
        widths=case.layer.widths,
        dora=case.dora,
    )


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
    grid = only_in_the_grid()

    def one(case: Case, trial: Trial) -> None:
        report = _Report(trial, roofs, cost_of(case).bytes, brief=(case.config, case.rows) in grid)
        try:
            _measure_case(case, providers, trial, report, repetitions)
        finally:
            forget(providers)

    return measure_each(QUESTION, cases, one, results, deadline=deadline)


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
        forget(providers)

    timed = [
        case
        for case in counted_cases()
        if case in cases and results.done(QUESTION, case.config, case.rows, IN_A_GRAPH)
    ]
    return measure_each(QUESTION, timed, one, results, deadline=deadline, metric="launches")


def forget(providers: Sequence[Provider]) -> None:
    """Let providers drop what they keep by address: the next case may get the same addresses."""
    for provider in providers:
        getattr(provider, "forget", lambda: None)()


def _measure_case(
    case: Case, providers: Sequence[Provider], trial: Trial, report: _Report, repetitions: int
) -> None:
    device = trial.device
    sets = sets_needed(report.moved, device)
    problem = make_problem(case, device)
    print(f"\n{case.config}; {case.rows} rows; {report.moved / 1e6:.2f} MB a call, {sets} sets")
    admitted = [provider for provider in providers if _admit(provider, problem, trial)]
    # All add to the same y: what is in it costs no time.
    pool = [make_problem(case, device, seed=2 + number) for number in range(sets)]
    calls: dict[str, list[Callable[[], None]]] = {}
    plans: dict[str, list[Callable[[], None]]] = {}
    for provider in admitted:
        with trial.guard(provider.name):
            plan = provider.plan(problem)
            calls[provider.name] = [provider.bind(own, plan) for own in pool]
            replan = getattr(provider, "replan", None)
            again = partial(replan, problem, plan) if replan else partial(provider.plan, problem)
            plans[provider.name] = [partial(_drop, again)]

    def failed(name: str, error: Exception) -> None:
        calls.pop(name, None)
        plans.pop(name, None)
        trial.failed(name, error)

    if device.type == "cuda":
        for name, samples in graph_times(calls, repetitions=repetitions, failed=failed).items():
            report.add(name, IN_A_GRAPH, samples)
    at_once = 20 if sets > 1 else 1
    for name, samples in eager_times(
        calls, device, repetitions=repetitions, at_once=at_once, failed=failed
    ).items():
        report.add(name, "time, eager", samples)
    if report.brief:
        return
    for name, samples in eager_times(
        plans, device, repetitions=max(1, repetitions // 4), at_once=1, failed=failed
    ).items():
        report.add(name, "plan, once a step", samples)


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
    if getattr(provider, "bound_only", False):
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


class _Report:
    """Writes one case's times and prints them; `brief` is without what follows from them."""

    def __init__(self, trial: Trial, roofs: Roofs, moved: int, *, brief: bool) -> None:
        self._trial = trial
        self._roofs = roofs
        self.moved = moved
        self.brief = brief

    def add(self, name: str, metric: str, samples: Sequence[float]) -> None:
        """Keep times in microseconds, and for those in a graph the bandwidth."""
        self._trial.note(name, metric, samples, "us")
        middle = sorted(samples)[len(samples) // 2]
        line = f"  {name:24} {metric:18} {middle:10.2f} us"
        if metric == IN_A_GRAPH:
            rates = [self.moved / each / 1e3 for each in samples]
            shares = [100 * rate * 1e9 / self._roofs.memory for rate in rates]
            if not self.brief:
                self._trial.note(name, "bandwidth", rates, "GB/s")
                self._trial.note(name, "share of the measured memory roof", shares, "%")
            line += f" {self.moved / middle / 1e3:8.0f} GB/s"
            line += f" {100 * self.moved / middle * 1e6 / self._roofs.memory:5.1f} % of the roof"
        print(line)


def _drop(call: Callable[[], object]) -> None:
    """Make a call of one that returns something."""
    call()
