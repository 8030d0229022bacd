"""Compare the ways to add LoRA products on this CPU, for each way to share adapters.

    python -m benchmarks.sgmv_cpu

Every way is held against fp64 first. Operands are rotated through more memory than a core's own
caches hold, and the ways take turns, so that ratios are of neighbours in time.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from benchmarks.gpu.checks import examine
from benchmarks.gpu.problem import make_problem
from benchmarks.gpu.providers import GatherBmm, GatheredBmm, Loop, OneAdapter
from benchmarks.gpu.timing import eager_times
from benchmarks.gpu.workloads import PUNICA, Layer, Workload, decode_case
from benchmarks.one_thread import of_bare_products, use_one_thread
from benchmarks.record import Row, write
from kernels.sgmv import GroupShape, LoraPair, Scratch, make_plan, make_slot_weights
from kernels.sgmv.cost import sgmv_cost

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

    from benchmarks.gpu.problem import Problem
    from benchmarks.gpu.providers import Provider
    from benchmarks.gpu.workloads import Case
    from kernels.sgmv import SgmvPlan

QUESTION = "sgmv_cpu"
RANK = 16
LAYERS = {
    PUNICA: (1, 2, 4, 8, 16, 32, 64),
    Layer("SmolLM2 qkv", 576, (576, 192, 192)): (1, 4, 16, 64),
}
POOL_BYTES = 150e6
REPETITIONS = 101


class Ours:
    """`kernels.sgmv` as a CPU worker uses it: each adapter packed at its own rank."""

    name = "Aril"

    def __init__(self) -> None:
        self._scratch = Scratch()  # one for all layers, as in the engine

    def refuses(self, problem: Problem) -> str | None:  # noqa: ARG002 - takes every problem
        """Refuse nothing."""
        return None

    def plan(self, problem: Problem) -> SgmvPlan:
        """Plan on the host."""
        return make_plan(problem.row_slots, slots=problem.slots)

    def bind(self, problem: Problem, plan: SgmvPlan) -> Callable[[], None]:
        """Load the slots."""
        shape = GroupShape(problem.x.shape[1], problem.widths, problem.max_rank)
        weights = make_slot_weights(
            shape,
            problem.slots,
            dtype=problem.x.dtype,
            backend="torch",
            scratch=self._scratch,
        )
        for slot, rank in enumerate(problem.ranks):
            weights.load(
                slot,
                [
                    LoraPair(a[slot, :rank], b[slot, :, :rank], problem.scales[slot])
                    for a, b in zip(problem.a, problem.b, strict=True)
                ],
            )
        y, x, add_ = problem.y, problem.x, weights.add_
        return lambda: add_(y, x, plan)


class Ideal:
    """Nothing but the grouped products, on rows that were sorted where no clock runs.

    No index, no scale, no sum with y: what no operator can be much faster than.
    """

    name = "bare grouped products"
    bound_only = True

    def refuses(self, problem: Problem) -> str | None:  # noqa: ARG002 - takes every problem
        """Refuse nothing."""
        return None

    def plan(self, problem: Problem) -> list[tuple[int, Tensor]]:
        """List the rows of each adapter."""
        return Loop().plan(problem)

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


def measure_case(case: Case, ways: Sequence[Provider]) -> list[Row]:
    """Check, then time one case; ratios are taken within each repetition."""
    problem = make_problem(case, "cpu")
    for way in ways:
        if isinstance(way, Ideal):  # leaves y alone
            continue
        verdict = examine(way, problem, runs=1, alone=0)
        if verdict.wrong is not None:
            raise RuntimeError(f"{way.name} is wrong on {case.config}: {verdict.wrong}")
    moved = sgmv_cost(
        case.segments,
        case.slice_ranks,
        in_features=case.layer.in_features,
        widths=case.layer.widths,
        element_bytes=4,
    ).bytes
    pool = [make_problem(case, "cpu", seed=1 + i) for i in range(_sets(moved))]
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

    def row(provider: str, metric: str, samples: Sequence[float], unit: str) -> Row:
        config = f"{case.config}; {torch.get_num_threads()} thread"
        return Row.of(
            samples,
            question=QUESTION,
            provider=provider,
            metric=metric,
            x=case.rows,
            unit=unit,
            config=config,
        )

    rows = [row(name, "time", samples, "us") for name, samples in times.items()]
    for name, samples in times.items():
        ratios = [other / own for other, own in zip(samples, times["Aril"], strict=True)]
        rows.append(row(name, "time over that of Aril", ratios, "1"))
    of_ideal = [own / bare for own, bare in zip(times["Aril"], times[Ideal.name], strict=True)]
    rows.append(row("Aril", "time over the bare products", of_ideal, "1"))
    return rows


def _sets(moved: int) -> int:
    return max(2, min(400, int(POOL_BYTES / moved) + 1))


def main() -> None:
    """Measure all cases, print the ratios, write sgmv_cpu.csv."""
    use_one_thread("benchmarks.sgmv_cpu")
    ways: list[Provider] = [Ours(), Loop(), GatherBmm(), GatheredBmm(), OneAdapter(), Ideal()]
    rows: list[Row] = []
    for case in all_cases():
        measured = measure_case(case, ways)
        rows += measured
        print(f"\n{case.config}; {case.rows} rows")
        for row in measured:
            if row.metric != "time":
                span = f"{row.p20:.2f} to {row.p80:.2f}"
                print(f"  {row.provider:24} {row.metric:28} {row.p50:7.2f}  {span}")
    write(QUESTION, rows)
    ideal = [row.p50 for row in rows if row.metric == "time over the bare products"]
    print(f"\n{of_bare_products(ideal)}")


if __name__ == "__main__":
    main()
