"""What the adapters of a whole decoder layer cost, beside the layer's own linears.

Seven projections in four fused groups, at 32 rows, as one CUDA graph: the linears alone, then with
each provider's LoRA behind each of them.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

import torch

from benchmarks.gpu.problem import make_problem
from benchmarks.gpu.timing import eager_times, graph_times
from benchmarks.gpu.workloads import LLAMA_8B, TINY, Workload, decode_case

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from benchmarks.gpu.problem import Problem
    from benchmarks.gpu.providers import Provider
    from benchmarks.gpu.results import Results
    from benchmarks.gpu.workloads import Layer

QUESTION = "layer_gpu"
ALONE = "linears alone"


def measure(
    providers: Sequence[Provider], results: Results, *, repetitions: int, rank: int = 16
) -> None:
    """Time the layer for rows that share adapters in three ways."""
    on_gpu = results.device.type == "cuda"
    layers: Sequence[Layer] = LLAMA_8B if on_gpu else TINY
    rows = 32 if on_gpu else 3
    dtype = "bfloat16" if on_gpu else "float16"
    names = "+".join(layer.name for layer in layers)
    workloads = (Workload.DISTINCT, Workload.UNIFORM, Workload.IDENTICAL)
    for workload in workloads if on_gpu else workloads[:1]:
        config = f"{workload}; {names}; rank {rank}; {dtype}"
        print(f"\n{config}; {rows} rows")
        # Two copies of a layer are many times what the L2 cache holds.
        stacks = [
            [
                make_problem(decode_case(workload, layer, rows, rank, dtype=dtype),
                             results.device, seed=10 * copy + number)
                for number, layer in enumerate(layers)
            ]
            for copy in range(2 if on_gpu else 1)
        ]  # fmt: skip
        bases = [[_linear(problem) for problem in stack] for stack in stacks]
        calls: dict[str, list[Callable[[], None]]] = {ALONE: [_chain(base) for base in bases]}
        for provider in providers:
            if getattr(provider, "bound_only", False) or provider.refuses(stacks[0][0]):
                continue
            calls[provider.name] = [
                _chain(_alternate(base, [_bound(provider, problem) for problem in stack]))
                for base, stack in zip(bases, stacks, strict=True)
            ]
        times = (
            graph_times(calls, repetitions=repetitions)
            if on_gpu
            else eager_times(calls, results.device, repetitions=repetitions, at_once=1)
        )
        alone = times[ALONE]
        for name, samples in times.items():
            added = [100 * (own / bare - 1) for own, bare in zip(samples, alone, strict=True)]
            results.add(QUESTION, name, "time", rows, samples, unit="us", config=config)
            results.add(
                QUESTION, name, "added to the linears", rows, added, unit="%", config=config
            )
            print(
                f"  {name:24} {statistics.median(samples):10.2f} us a layer, "
                f"{statistics.median(added):+7.1f} %"
            )
        results.write()
        for provider in providers:
            getattr(provider, "forget", lambda: None)()


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
