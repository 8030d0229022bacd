"""Compare the ways to add LoRA products on this CPU, for each way to share adapters.

    python -m benchmarks.sgmv_cpu    # writes sgmv_cpu.csv

Every way is held against fp64 first. Operands are rotated through more memory than a core's own
caches hold, and the ways take turns, so that ratios are of neighbours in time.
"""

from __future__ import annotations

import statistics
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import torch

from benchmarks.gpu.checks import examine
from benchmarks.gpu.cost import cost_of
from benchmarks.gpu.ours import AsServed
from benchmarks.gpu.problem import make_problem
from benchmarks.gpu.providers import GatherBmm, GatheredBmm, Loop, OneAdapter, Provider
from benchmarks.gpu.timing import MOST_SETS, eager_times
from benchmarks.gpu.workloads import PUNICA, Layer, Workload, decode_case
from benchmarks.record import Row, keep, ratios
from benchmarks.turns import use_one_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from torch import Tensor

    from benchmarks.gpu.problem import Problem
    from benchmarks.gpu.workloads import Case

QUESTION = "sgmv_cpu"
ARIL = "Aril"  # as a CPU worker uses it: each adapter packed at its own rank
RANK = 16
LAYERS = {
    PUNICA: (1, 2, 4, 8, 16, 32, 64),
    Layer("SmolLM2 qkv", 576, (576, 192, 192)): (1, 4, 16, 64),
}
POOL_BYTES = 150e6
REPETITIONS = 101
WANTED_OF_IDEAL = 1.3


class Ideal(Loop):
    """Nothing but the grouped products, on rows that were sorted where no clock runs.

    No index, no scale, no sum with y: what no operator can be much faster than.
    """

    name = "bare grouped products"
    bound_only = True

    def bind(self, problem: Problem, plan: Sequence[tuple[int, Tensor]]) -> Callable[[], None]:
        """Lay out everything, results included."""
        work = []
        for slot, rows in plan:
            rank = problem.ranks[slot]
            a = torch.cat([part[slot, :rank] for part in problem.a]).T.contiguous()
            shrunk = problem.x.new_empty(len(rows), a.shape[1])
            slices = [
                (
                    v,
                    part[slot, :, :rank].T.contiguous(),
                    problem.x.new_empty(len(rows), part.shape[1]),
                )
                for v, part in zip(shrunk.split(rank, 1), problem.b, strict=True)
            ]
            work.append((problem.x[rows].contiguous(), a, shrunk, slices))

        def call() -> None:
            for x, a, shrunk, slices in work:
                torch.mm(x, a, out=shrunk)
                for v, b, out in slices:
                    torch.mm(v, b, out=out)

        return call


def all_cases() -> Iterator[Case]:
    """List the cases: an adapter's rows side by side, as the engine's scheduler puts them.

    And some with rows apart, which any caller may have.
    """
    for layer, counts in LAYERS.items():
        for count in counts:
            for workload in Workload if count > 1 else (Workload.DISTINCT,):
                yield decode_case(workload, layer, count, RANK, dtype="float32", together=True)
        for workload in (Workload.UNIFORM, Workload.SKEWED):
            apart = decode_case(workload, layer, 64, RANK, dtype="float32")
            yield replace(apart, workload=f"{workload}, rows apart")


def check(problem: Problem, ways: Sequence[Provider]) -> None:
    """Raise RuntimeError where one of the ways is wrong."""
    for way in ways:
        if isinstance(way, Ideal):  # leaves y alone
            continue
        verdict = examine(way, problem, runs=1, alone=0)
        if verdict.wrong is not None:
            raise RuntimeError(f"{way.name} is wrong on {problem.case.config}: {verdict.wrong}")


def measure_case(case: Case, ways: Sequence[Provider]) -> list[Row]:
    """Check, then time one case; ratios are taken within each repetition."""
    problem = make_problem(case, "cpu")
    check(problem, ways)
    sets = int(POOL_BYTES / cost_of(case, element_bytes=4).bytes) + 1
    pool = [make_problem(case, "cpu", seed=1 + i) for i in range(max(2, min(MOST_SETS, sets)))]
    calls = {
        way.name: [way.bind(own.fresh(), plan) for own in pool]
        for way in ways
        if way.refuses(problem) is None
        for plan in [way.plan(problem)]  # once a step, as in the engine: all layers share it
    }
    for bound in calls.values():
        for call in bound:
            call()
    times = eager_times(calls, torch.device("cpu"), repetitions=REPETITIONS, at_once=1)
    config = f"{case.config}; {torch.get_num_threads()} thread"
    row = partial(Row.of, question=QUESTION, x=case.rows, config=config)
    own = times[ARIL]
    bare = ratios(own, times[Ideal.name])
    return [
        *(row(taken, provider=name, metric="time", unit="us") for name, taken in times.items()),
        *(
            row(ratios(taken, own), provider=name, metric="time over that of Aril", unit="1")
            for name, taken in times.items()
        ),
        row(bare, provider=ARIL, metric="time over the bare products", unit="1"),
    ]


def of_bare_products(found: Collection[float]) -> str:
    """Say how far from the bare grouped products the cases are."""
    within = sum(ratio <= WANTED_OF_IDEAL for ratio in found)
    return (
        f"Aril over the bare grouped products: {statistics.median(found):.2f} in the middle, "
        f"{max(found):.2f} at worst; within {WANTED_OF_IDEAL} in {within} of {len(found)}"
    )


def main() -> None:
    """Measure all cases, write sgmv_cpu.csv."""
    use_one_thread("benchmarks.sgmv_cpu")
    ways = [AsServed(ARIL, "torch"), Loop(), GatherBmm(), GatheredBmm(), OneAdapter(), Ideal()]
    rows = [row for case in all_cases() for row in measure_case(case, ways)]
    keep(QUESTION, rows)
    ideal = [row.p50 for row in rows if row.metric == "time over the bare products"]
    print(f"\n{of_bare_products(ideal)}")


if __name__ == "__main__":
    main()
