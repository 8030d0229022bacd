"""The workers of a fleet: started, ended, and what their logs and metrics tell."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import psutil

from benchmarks.stack import Stack, cpu_seconds

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from benchmarks.fleet_real.broker import FleetKafka
    from benchmarks.fleet_real.plan import Plan
    from tests.support.workers import WorkerProcess

MODULE: Final = "benchmarks.fleet_real.worker"
SETTLE_SECONDS: Final = 120.0
QUIET_SECONDS: Final = 3.0  # without a rebalance: it is over
TROUBLE: Final = {"warning", "error", "critical"}


class Assigned(NamedTuple):
    """A worker's line on an assignment, at a time of the machine's clock."""

    at: float
    generation: int
    partitions: int


@dataclass(frozen=True)
class Usage:
    """What processes have used so far, and how much memory they hold."""

    at: float
    seconds: dict[str, float]  # of CPU, by process
    resident: dict[str, int]  # bytes


class Fleet(Stack):
    """Worker processes around a paced engine; those that have ended stay in `workers`."""

    def __init__(self, plan: Plan, kafka: FleetKafka) -> None:
        super().__init__(
            kafka.bootstrap, partitions=plan.partitions, reply_partitions=1, tenants=plan.names
        )
        self.plan = plan
        self.kafka = kafka

    async def join(self) -> WorkerProcess:
        """Start one more worker and wait until it takes jobs."""
        return await self.add_worker(
            MODULE,
            str(self.plan.pace),
            max_rows=self.plan.rows,
            session_timeout_ms=int(self.plan.session_seconds * 1_000),
            log_level="info",
        )

    @property
    def alive(self) -> list[WorkerProcess]:
        """The workers that run."""
        return [each for each in self.workers if each.exit_code is None]

    async def settled(self) -> float:
        """Wait until all that run have one generation's partitions, all of them; return since when.

        By the machine's clock. Raises TimeoutError.
        """
        async with asyncio.timeout(SETTLE_SECONDS):
            while True:
                last = [latest(each.log.read_text()) for each in self.alive]
                told = [each for each in last if each is not None]
                since = max((each.at for each in told), default=time.time())
                if (
                    len(told) == len(last)
                    and len({each.generation for each in told}) == 1
                    and sum(each.partitions for each in told) == self.partitions
                    and time.time() - since > min(QUIET_SECONDS, self.plan.warm_seconds)
                ):
                    return since
                await asyncio.sleep(0.5)

    @property
    def generation(self) -> int:
        """The group's newest generation that any worker has told of."""
        found = (latest(each.log.read_text()) for each in self.workers)
        return max((each.generation for each in found if each is not None), default=0)

    def usage(self) -> Usage:
        """Look at broker, load and workers."""
        java = [self.kafka.pid] if self.kafka.pid is not None else []
        pids = {"broker": java[0], "load": psutil.Process().pid} if java else {}
        pids |= {each.name: each.pid for each in self.alive}
        return Usage(
            at=time.monotonic(),
            seconds={name: cpu_seconds(pid) for name, pid in pids.items()},
            resident={name: psutil.Process(pid).memory_info().rss for name, pid in pids.items()},
        )

    async def metrics(self) -> dict[str, Counter[str]]:
        """Return the sums of each running worker's metrics, by worker."""
        pages = await asyncio.gather(*(each.probe("/metrics") for each in self.alive))
        return {
            worker.name: sums_of(page) for worker, (_, page) in zip(self.alive, pages, strict=True)
        }

    def troubles(self) -> Counter[str]:
        """Count what all workers warned of, by event."""
        return Counter(
            str(line["event"])
            for worker in self.workers
            for line in lines_of(worker.log.read_text())
            if line.get("level") in TROUBLE
        )


def sums_of(page: str) -> Counter[str]:
    """Add up a page's series by name."""
    found: Counter[str] = Counter()
    for line in page.splitlines():
        if line and not line.startswith("#"):
            series, _, value = line.rpartition(" ")
            found[series.partition("{")[0]] += float(value)  # type: ignore[assignment] # no count
    return found


def grown(
    before: dict[str, Counter[str]], after: dict[str, Counter[str]], name: str
) -> list[float]:
    """Return by how much a metric has grown on each worker that was there before."""
    return [after[worker][name] - sums[name] for worker, sums in before.items() if worker in after]


def lines_of(log: str) -> Iterator[dict[str, Any]]:
    """Read a worker's log; what is no JSON, or not whole yet, is passed over."""
    for line in log.splitlines():
        if line.startswith("{") and line.endswith("}"):
            yield json.loads(line)


def assignments(log: str) -> Iterator[Assigned]:
    """Read a worker's assignments from its log."""
    for line in lines_of(log):
        if line["event"] == "partitions_assigned":
            at = dt.datetime.fromisoformat(line["timestamp"]).timestamp()
            yield Assigned(at, line["generation"], line["partitions"])


def latest(log: str) -> Assigned | None:
    """Return the last one."""
    *_, last = (None, *assignments(log))
    return last


def writers(workers: Iterable[WorkerProcess]) -> set[str]:
    """Return the processes' numbers as they stand in writers' names."""
    return {str(each.pid) for each in workers}


def is_by(writer: str | None, numbers: set[str]) -> bool:
    """Tell whether a writer's name has one of these processes' numbers in it."""
    return writer is not None and writer.rsplit("-", 2)[1] in numbers


def busiest(
    workers: Sequence[WorkerProcess], counts: Counter[str], number: int
) -> list[WorkerProcess]:
    """Return the workers with the most streams, by their processes' numbers."""
    return sorted(workers, key=lambda each: -counts[str(each.pid)])[:number]
