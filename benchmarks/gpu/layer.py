"""What the adapters of a whole decoder layer cost, beside the layer's own linears.

    python -m benchmarks.gpu --only layer    # writes layer_gpu.csv

Seven projections in four fused groups, at 32 rows, as one CUDA graph: the linears alone, then with
each provider's LoRA behind each of them.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch

from benchmarks.gpu.problem import make_problem
from benchmarks.gpu.providers import BOUNDS, refusal
from benchmarks.gpu.timing import times
from benchmarks.gpu.trial import measure_each
from benchmarks.gpu.workloads import LLAMA_8B, TINY, Workload, decode_case
from benchmarks.record import ratios

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from benchmarks.gpu.problem import Problem
    from benchmarks.gpu.providers import Provider
    from benchmarks.gpu.results import Results
    from benchmarks.gpu.trial import Trial
    from benchmarks.gpu.workloads import Layer

QUESTION = "layer_gpu"
ALONE = "linears alone"
ADDED = "added to the linears"


@dataclass(frozen=True)
class LayerCase:
    """The fused groups of one layer, and how its rows share adapters."""

    workload: Workload
    layers: tuple[Layer, ...] = LLAMA_8B
    rows: int = 32
    rank: int = 16
    dtype: str = "bfloat16"

    @property
    def config(self) -> str:
        """What the CSV says of it."""
        names = "+".join(layer.name for layer in self.layers)
        return f"{self.workload}; {names}; rank {self.rank}; {self.dtype}"

    def problems(self, device: torch.device, copy: int) -> list[Problem]:
        """Draw the operands of each group."""
        return [
            make_problem(
                decode_case(self.workload, layer, self.rows, self.rank, dtype=self.dtype),
                device,
                seed=10 * copy + number,
            )
            for number, layer in enumerate(self.layers)
        ]


def all_cases() -> list[LayerCase]:
    """List three ways to share adapters."""
    return [LayerCase(each) for each in (Workload.DISTINCT, Workload.UNIFORM, Workload.IDENTICAL)]


def tiny_cases() -> list[LayerCase]:
    """List one that the interpreter can do."""
    return [LayerCase(Workload.DISTINCT, TINY, rows=3, dtype="float16")]


def measure(
    cases: Sequence[LayerCase],
    providers: Sequence[Provider],
    results: Results,
    *,
    deadline: float,
    repetitions: int,
) -> int:
    """Time the layer with each provider; return how many cases are left at the deadline."""
    one = partial(_measure_case, providers=providers, repetitions=repetitions)
    return measure_each(QUESTION, cases, one, results, deadline=deadline, providers=providers)


def _measure_case(
    case: LayerCase, trial: Trial, *, providers: Sequence[Provider], repetitions: int
) -> None:
    print(f"\n{case.config}; {case.rows} rows")
    # Two copies of a layer are many times what the L2 cache holds.
    copies = 2 if trial.device.type == "cuda" else 1
    stacks = [case.problems(trial.device, copy) for copy in range(copies)]
    bases = [[_linear(problem) for problem in stack] for stack in stacks]
    calls: dict[str, list[Callable[[], None]]] = {ALONE: [_chain(base) for base in bases]}
    for provider in providers:
        reasons = [refusal(provider, problem) for stack in stacks for problem in stack]
        reason = next((each for each in reasons if each is not None), None)
        if provider.name in BOUNDS or trial.leaves_out(provider.name, reason):
            continue
        with trial.guard(provider.name):
            calls[provider.name] = [
                _chain(_alternate(base, [_bound(provider, problem) for problem in stack]))
                for base, stack in zip(bases, stacks, strict=True)
            ]
    taken = times(calls, trial.device, repetitions=repetitions, failed=trial.drops(calls))
    alone = taken.get(ALONE)
    if alone is None:
        return
    for name, samples in taken.items():
        added = [100 * (share - 1) for share in ratios(samples, alone)]
        trial.note(name, "time", samples, "us")
        trial.note(name, ADDED, added, "%")
        print(
            f"  {name:24} {statistics.median(samples):10.2f} us a layer, "
            f"{statistics.median(added):+7.1f} %"
        )


def _linear(problem: Problem) -> Callable[[], None]:
    generator = torch.Generator(problem.device).manual_seed(1)
    weight: Tensor = torch.randn(
        problem.y.shape[1],
        problem.x.shape[1],
        generator=generator,
        device=problem.device,
        dtype=problem.x.dtype,
    ).mul_(problem.x.shape[1] ** -0.5)

    def call() -> None:
        torch.mm(problem.x, weight.T, out=problem.y)

    return call


def _bound(provider: Provider, problem: Problem) -> Callable[[], None]:
    return provider.bind(problem, provider.plan(problem))


def _alternate(
    first: Sequence[Callable[[], None]], second: Sequence[Callable[[], None]]
) -> list[Callable[[], None]]:
    return [call for pair in zip(first, second, strict=True) for call in pair]


def _chain(calls: Sequence[Callable[[], None]]) -> Callable[[], None]:
    def run() -> None:
        for call in calls:
            call()

    return run
