"""What LoRA costs in a decode step on this CPU, beside the bare products of its segments.

    python -m benchmarks.sgmv_step    # writes sgmv_step.csv

Every linear of a model of SmolLM2's shapes, the backbone's product before each group's LoRA as in
the engine, so that neither code nor weights stay in the caches from call to call: what a lone call
in a loop, as in sgmv_cpu, can't show. The ways take turns by whole steps.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

import torch

from benchmarks.gpu.ours import AsServed
from benchmarks.gpu.problem import make_problem
from benchmarks.gpu.providers import Loop
from benchmarks.gpu.workloads import Case, Layer, Workload, segment_sizes
from benchmarks.record import Row, keep, ratios
from benchmarks.sgmv_cpu import ARIL, Ideal, check, of_bare_products
from benchmarks.turns import in_turns, use_one_thread

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
    for case in cases:
        check(make_problem(case, "cpu"), ways)
    first = make_problem(cases[0], "cpu")
    plans = {way.name: way.plan(first) for way in ways}  # one for all layers, as in the engine
    groups = [Group(case, seed, ways, plans) for seed in range(LAYERS) for case in cases]

    def step(way: str) -> tuple[float, float]:
        spent = [group.step(way) for group in groups]
        return sum(base for base, _ in spent) / 1e6, sum(lora for _, lora in spent) / 1e6

    found = in_turns({way.name: partial(step, way.name) for way in ways}, REPETITIONS)
    times = {way: [lora for _, lora in spent] for way, spent in found.items()}
    times[BACKBONE] = [base for spent in found.values() for base, _ in spent]
    config = f"{name}; {LAYERS} layers of SmolLM2; float32; {torch.get_num_threads()} thread"
    row = partial(Row.of, question=QUESTION, x=len(row_slots), config=config)
    rows = [
        row(spent, provider=way, metric="time of a step", unit="ms") for way, spent in times.items()
    ]
    for way in (ARIL, Loop.name):
        over = ratios(times[way], times[Ideal.name])
        rows.append(row(over, provider=way, metric="time over the bare products", unit="1"))
    return rows


def main() -> None:
    """Measure all batches, write sgmv_step.csv."""
    use_one_thread("benchmarks.sgmv_step")
    ways: list[Provider] = [AsServed(ARIL, "torch"), Loop(), Ideal()]
    rows = [row for batch in all_batches() for row in measure_batch(*batch, ways)]
    keep(QUESTION, rows)
    ours = [r.p50 for r in rows if r.provider == ARIL and r.metric.startswith("time over")]
    print(f"\nIn a step, {of_bare_products(ours)}")


if __name__ == "__main__":
    main()
