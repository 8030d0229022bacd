"""The operator's table: each provider examined, then timed, over one list of cases."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch

from benchmarks.gpu.checks import examine
from benchmarks.gpu.problem import make_problem
from benchmarks.gpu.timing import eager_times, graph_times, launches, sets_needed
from benchmarks.gpu.workloads import (
    LLAMA_8B,
    LLAMA_70B,
    PUNICA,
    TINY,
    Workload,
    decode_case,
    mixed_rank_case,
    prefill_case,
)
from kernels.sgmv.cost import sgmv_cost

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from benchmarks.gpu.problem import Problem
    from benchmarks.gpu.providers import Provider
    from benchmarks.gpu.results import Results
    from benchmarks.gpu.workloads import Case
    from kernels.sgmv.cost import Roofs

QUESTION = "sgmv_gpu"
# The profiler takes long to start, and one slice and three are all that differ in launches.
COUNTED = (PUNICA, LLAMA_8B[0])


def all_cases() -> Iterator[Case]:
    """List the cases, those that tell most first: a run may be cut short anywhere."""
    yield from _punica_cases()
    yield from _llama_cases()


def _punica_cases() -> Iterator[Case]:
    for rows in (64, 1, 16, 32, 4, 2, 8):
        for workload in Workload:
            if rows > 1 or workload is Workload.DISTINCT:  # with one row all four are the same
                yield decode_case(workload, PUNICA, rows, 16)


def _llama_cases() -> Iterator[Case]:
    qkv, o, gate_up, down = LLAMA_8B
    for layer in (qkv, gate_up, down, o):
        for workload in (Workload.DISTINCT, Workload.UNIFORM, Workload.IDENTICAL):
            yield decode_case(workload, layer, 32, 16)
    for rank in (8, 32, 64, 128):
        for workload in (Workload.DISTINCT, Workload.IDENTICAL):
            yield decode_case(workload, o, 64, rank)
    yield mixed_rank_case(Workload.DISTINCT, qkv, 64)
    yield mixed_rank_case(Workload.SKEWED, qkv, 64)
    for tokens in (512, 2048, 128, 8192):
        yield prefill_case(qkv, [tokens])
        yield prefill_case(qkv, [tokens // 4] * 4)
    yield prefill_case(qkv, [512, 256], decodes=32, backbone=8)
    yield prefill_case(down, [512, 256], decodes=32, backbone=8)
    for layer in LLAMA_70B:
        yield decode_case(Workload.DISTINCT, layer, 64, 16)
        yield decode_case(Workload.UNIFORM, layer, 64, 16)
    for rank in (8, 32, 64, 128):
        yield decode_case(Workload.UNIFORM, o, 64, rank)
    yield prefill_case(qkv, [2048], rank=64)
    yield prefill_case(gate_up, [512] * 4)


def tiny_cases() -> Iterator[Case]:
    """List a few that take every provider through every branch, in the interpreter's patience."""
    stacked, single = TINY
    yield decode_case(Workload.SKEWED, stacked, 4, 16, dtype="float16")
    yield mixed_rank_case(Workload.UNIFORM, single, 3, dtype="float16")
    yield prefill_case(stacked, [5, 3], decodes=2, backbone=1, dtype="float16")


def measure(
    cases: Sequence[Case],
    providers: Sequence[Provider],
    results: Results,
    roofs: Roofs,
    *,
    deadline: float,
    repetitions: int,
) -> None:
    """Examine and time every provider on every case until the time is up."""
    for number, case in enumerate(cases):
        if time.monotonic() > deadline:
            print(f"time is up: {len(cases) - number} cases of {QUESTION} left out")
            return
        _measure_case(case, providers, results, roofs, repetitions)
        results.write()
        for provider in providers:
            getattr(provider, "forget", lambda: None)()
        if results.device.type == "cuda":
            torch.cuda.empty_cache()


def _measure_case(
    case: Case,
    providers: Sequence[Provider],
    results: Results,
    roofs: Roofs,
    repetitions: int,
) -> None:
    cost = sgmv_cost(
        case.segments,
        case.slice_ranks,
        in_features=case.layer.in_features,
        widths=case.layer.widths,
    )
    sets = sets_needed(cost.bytes, results.device)
    problem = make_problem(case, results.device)
    print(f"\n{case.config}; {case.rows} rows; {cost.bytes / 1e6:.2f} MB a call, {sets} sets")
    bindings: dict[str, tuple[Provider, object]] = {}
    for provider in providers:
        plan = _admit(provider, problem, results)
        if plan is not None:
            bindings[provider.name] = (provider, plan[0])
    pool = [make_problem(case, results.device, seed=2 + number) for number in range(sets)]
    calls = {
        name: [provider.bind(own.fresh(), plan) for own in pool]
        for name, (provider, plan) in bindings.items()
    }
    report = _Report(case, results, roofs, cost.bytes)
    if results.device.type == "cuda":
        for name, samples in graph_times(calls, repetitions=repetitions).items():
            report.add(name, "time in a graph", samples)
        if case.layer in COUNTED and case.decode:
            for name, ways in calls.items():
                report.count(name, launches(ways[0]))
    eager = eager_times(
        calls, results.device, repetitions=repetitions, at_once=20 if sets > 1 else 1
    )
    for name, samples in eager.items():
        report.add(name, "time, eager", samples)
    plans: dict[str, list[Callable[[], None]]] = {
        name: [lambda provider=provider: _drop(provider.plan(problem))]  # type: ignore[misc]
        for name, (provider, _) in bindings.items()
    }
    planned = eager_times(plans, results.device, repetitions=max(1, repetitions // 4), at_once=1)
    for name, samples in planned.items():
        report.add(name, "plan, once a step", samples)


def _admit(provider: Provider, problem: Problem, results: Results) -> tuple[object] | None:
    """Examine a provider; return its plan in a tuple if it may be timed."""
    case = problem.case
    reason = provider.refuses(problem)
    if reason is not None:
        print(f"  {provider.name:24} left out: {reason}")
        return None

    def note(metric: str, value: float, unit: str) -> None:
        results.add(
            QUESTION, provider.name, metric, case.rows, [value], unit=unit, config=case.config
        )

    try:
        # Each of these is compiled anew for one row, so not for every shape.
        closely = case.layer in COUNTED and not results.rehearsal
        verdict = examine(
            provider,
            problem,
            runs=3 if closely else 1,
            alone=3 if closely else int(results.rehearsal),
        )
        plan = provider.plan(problem)
    except Exception as error:  # noqa: BLE001 - a peer that fails here must not end the run
        print(f"  {provider.name:24} FAILED: {error!r:.300}")
        note("failed", 1, "1")
        return None
    if verdict.wrong is not None:
        print(f"  {provider.name:24} WRONG: {verdict.wrong}")
        note("wrong", verdict.error, "1")
        return None
    if not getattr(provider, "bound_only", False):
        note("largest error of a row", verdict.error, "1")
        line = f"  {provider.name:24} right, off by {verdict.error:.2g}"
        for metric, said in (
            ("deterministic", verdict.deterministic),
            ("row-invariant", verdict.row_invariant),
        ):
            if said is not None:
                note(metric, float(said), "1")
                line += f"; {metric}: {'yes' if said else 'no'}"
        print(line)
    return (plan,)


class _Report:
    """Writes one case's figures and prints them."""

    def __init__(self, case: Case, results: Results, roofs: Roofs, moved: int) -> None:
        self._case = case
        self._results = results
        self._roofs = roofs
        self._moved = moved

    def add(self, name: str, metric: str, samples: Sequence[float]) -> None:
        """Keep times in microseconds, and for those in a graph the bandwidth."""
        self._keep(name, metric, samples, "us")
        middle = sorted(samples)[len(samples) // 2]
        line = f"  {name:24} {metric:18} {middle:10.2f} us"
        if metric == "time in a graph":
            rates = [self._moved / each / 1e3 for each in samples]
            shares = [100 * rate * 1e9 / self._roofs.memory for rate in rates]
            self._keep(name, "bandwidth", rates, "GB/s")
            self._keep(name, "share of the measured memory roof", shares, "%")
            line += f" {self._moved / middle / 1e3:8.0f} GB/s"
            line += f" {100 * self._moved / middle * 1e6 / self._roofs.memory:5.1f} % of the roof"
        print(line)

    def count(self, name: str, launched: int) -> None:
        """Keep how many kernels a call takes."""
        self._keep(name, "launches", [launched], "1")

    def _keep(self, name: str, metric: str, samples: Sequence[float], unit: str) -> None:
        config = self._case.config
        self._results.add(
            QUESTION, name, metric, self._case.rows, samples, unit=unit, config=config
        )


def _drop(_: object) -> None:
    """Make a call of one that returns something."""
