"""What LoRA costs in a decode step on this CPU, beside the bare products of its segments.

    python -m benchmarks.sgmv_step

Every linear of a model of SmolLM2's shapes, the backbone's product before each group's LoRA as in
the engine, so that neither code nor weights stay in the caches from call to call: what a lone call
in a loop, as in sgmv_cpu, can't show. The ways take turns by whole steps.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

import torch

from benchmarks.gpu.checks import examine
from benchmarks.gpu.problem import make_problem
from benchmarks.gpu.providers import Loop
from benchmarks.gpu.workloads import Case, Layer, Workload, segment_sizes
from benchmarks.one_thread import of_bare_products, use_one_thread
from benchmarks.record import Row, write
from benchmarks.sgmv_cpu import Ideal, Ours

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from benchmarks.gpu.providers import Provider

QUESTION = "sgmv_step"
GROUPS = (
    Layer("qkv", 576, (576, 192, 192)),
    Layer("o", 576, (576,)),
    Layer("gate up", 576, (1536, 1536)),
    Layer("down", 1536, (576,)),
)
LAYERS = 30
ROWS = 16
RANKS = (4, 8, 16, 32)
REPETITIONS = 21
BACKBONE = "backbone's linears"


def all_batches() -> Iterator[tuple[str, tuple[int, ...], tuple[int, ...]]]:
    """List the batches: name, slot of each row, rank of each slot."""
    yield "one row", (0,), (16,)
    for workload in Workload:
        sizes = segment_sizes(workload, ROWS)
        rows = tuple(slot for slot, size in enumerate(sizes) for _ in range(size))
        yield f"{workload}, {ROWS} rows", rows, (16,) * len(sizes)
    mixed = (0,) * 4 + (1,) * 3 + (2,) * 3 + (3,) * 3 + (-1,) * 3
    yield f"Mixed ranks, {ROWS} rows, 3 of them without adapter", mixed, RANKS


class Group:
    """One group of linears in one layer: the backbone's weight, and each way's call."""

    def __init__(
        self, case: Case, seed: int, ways: Sequence[Provider], plans: dict[str, object]
    ) -> None:
        problem = make_problem(case, "cpu", seed=seed)
        self.x, self.y = problem.x, problem.y
        self.weight = torch.randn(problem.y.shape[1], problem.x.shape[1])
        self.calls: dict[str, Callable[[], None]] = {
            way.name: way.bind(problem, plans[way.name]) for way in ways
        }

    def step(self, way: str) -> tuple[int, int]:
        """Do the backbone's product and then LoRA's; return nanoseconds of both."""
        call, out, weight = self.calls[way], self.y, self.weight
        begin = time.perf_counter_ns()
        torch.mm(self.x, weight.T, out=out)
        middle = time.perf_counter_ns()
        call()
        return middle - begin, time.perf_counter_ns() - middle


def measure_batch(
    name: str, row_slots: tuple[int, ...], ranks: tuple[int, ...], ways: Sequence[Provider]
) -> list[Row]:
    """Check each way on each group of linears, then time whole steps."""
    cases = [Case(name, layer, row_slots, ranks, dtype="float32") for layer in GROUPS]
    _check(cases, ways)
    first = make_problem(cases[0], "cpu")
    plans = {way.name: way.plan(first) for way in ways}  # one for all layers, as in the engine
    groups = [Group(case, seed, ways, plans) for seed in range(LAYERS) for case in cases]
    milliseconds: dict[str, list[float]] = {way.name: [] for way in ways}
    backbone: list[float] = []
    order = [way.name for way in ways]
    for repetition in range(REPETITIONS + 1):
        random.Random(repetition).shuffle(order)
        for way in order:
            spent = [group.step(way) for group in groups]
            if repetition:  # the first only warms up
                milliseconds[way].append(sum(lora for _, lora in spent) / 1e6)
                backbone.append(sum(base for base, _ in spent) / 1e6)

    config = f"{name}; {LAYERS} layers of SmolLM2; float32; {torch.get_num_threads()} thread"

    def row(provider: str, metric: str, samples: Sequence[float], unit: str) -> Row:
        return Row.of(
            samples,
            question=QUESTION,
            provider=provider,
            metric=metric,
            x=len(row_slots),
            unit=unit,
            config=config,
        )

    rows = [row(way, "time of a step", samples, "ms") for way, samples in milliseconds.items()]
    rows.append(row(BACKBONE, "time of a step", backbone, "ms"))
    bare = milliseconds[Ideal.name]
    for way in (Ours.name, Loop.name):
        ratios = [own / ideal for own, ideal in zip(milliseconds[way], bare, strict=True)]
        rows.append(row(way, "time over the bare products", ratios, "1"))
    return rows


def _check(cases: Sequence[Case], ways: Sequence[Provider]) -> None:
    for case in cases:
        problem = make_problem(case, "cpu")
        for way in ways:
            if isinstance(way, Ideal):  # leaves y alone
                continue
            verdict = examine(way, problem, runs=1, alone=0)
            if verdict.wrong is not None:
                raise RuntimeError(f"{way.name} is wrong on {case.config}: {verdict.wrong}")


def main() -> None:
    """Measure all batches, print the ratios, write sgmv_step.csv."""
    use_one_thread("benchmarks.sgmv_step")
    ways: list[Provider] = [Ours(), Loop(), Ideal()]
    rows: list[Row] = []
    for name, row_slots, ranks in all_batches():
        measured = measure_batch(name, row_slots, ranks, ways)
        rows += measured
        print(f"\n{name}")
        for row in measured:
            span = f"{row.p20:.2f} to {row.p80:.2f}"
            print(f"  {row.provider:24} {row.metric:28} {row.p50:8.2f} {row.unit:3} {span}")
    write(QUESTION, rows)
    ours = [r.p50 for r in rows if r.provider == Ours.name and r.metric.startswith("time over")]
    print(f"\nIn a step, {of_bare_products(ours)}")


if __name__ == "__main__":
    main()
