"""Measure what an idle worker holds that knows many partitions and tenants, without a model.

    python -m benchmarks.idle_memory    # some ten minutes; writes idle_memory.csv

A real Kafka with a reply topic for each tenant, one worker whose engine answers at once and that
remembers as many finished jobs as it may (`benchmarks.full_worker`; torch is not imported). Each
tenant has a job answered, then another, and a third; behind each round the worker is left alone for
a while. Beside it: what importing torch costs a process, and what single things take by
tracemalloc.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import tracemalloc
from typing import TYPE_CHECKING, Final

import psutil
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient

from aril.schemas import Job, Sampling, encode_request
from aril.worker.batching.counters import Counters
from aril.worker.job import Asked, Partition
from aril.worker.queue.assignment import Membership, PartitionState
from aril.worker.queue.identities import FinishedJobs, IdentityBound
from aril.worker.queue.ledger import Checkpoint
from aril.worker.replies.known_topics import KnownTopics
from aril.worker.topics.admin import TopicPlan, TopicsError, ensure_topics
from benchmarks.full_worker import MADE_UP
from benchmarks.record import Row
from benchmarks.stack import Stack, keep_measured

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

QUESTION: Final = "idle_memory"
FULL: Final = "benchmarks.full_worker"
PARTITIONS: Final = 1_000
TENANTS: Final = 10_000
JOBS: Final = (TENANTS, 2 * TENANTS, 3 * TENANTS)
JOBS_AT_ONCE: Final = 2_500
TOPICS_AT_ONCE: Final = 250  # a controller takes no more than so many records in a request
IDLE_SECONDS: Final = 30.0
TOPICS_SECONDS: Final = 600.0
RUN_SECONDS: Final = 1_200.0
HEAP: Final = "-Xms512m -Xmx2g"  # of the broker: 11,000 logs
TOLD: Final = "import psutil{}; print(psutil.Process().memory_info().rss)"
MB: Final = 1_000_000


async def make_topics(stack: Stack, tenants: Sequence[str]) -> None:
    """Create all topics, those of some tenants at a time, until they have leaders."""
    plan = TopicPlan(jobs_partitions=stack.partitions, reply_partitions=stack.reply_partitions)
    for at in range(0, len(tenants), TOPICS_AT_ONCE):
        some = tenants[at : at + TOPICS_AT_ONCE]
        async with asyncio.timeout(TOPICS_SECONDS):
            while not await made(stack, some, plan):  # noqa: ASYNC110 - it is asked again
                await asyncio.sleep(1.0)


async def made(stack: Stack, tenants: Sequence[str], plan: TopicPlan) -> bool:
    """Create what is missing; False if the broker needs more time for it."""
    try:
        await ensure_topics(stack.bootstrap, stack.contract, tenants, plan)
    except TopicsError:
        return False
    return True


async def run(stack: Stack, jobs: range) -> None:
    """Put jobs into the queue, each tenant's and each partition's in turn, and see them finished.

    No more at once than the broker and the worker deal with in a moment, however busy the machine.
    """
    admin = AIOKafkaAdminClient(bootstrap_servers=stack.bootstrap)
    producer = AIOKafkaProducer(bootstrap_servers=stack.bootstrap, linger_ms=20)
    async with producer, asyncio.timeout(RUN_SECONDS):
        await admin.start()
        for at in range(jobs.start, jobs.stop, JOBS_AT_ONCE):
            numbers = range(at, min(at + JOBS_AT_ONCE, jobs.stop))
            await asyncio.gather(*[await send(stack, producer, number) for number in numbers])
            await finished(stack, admin, at)
        await finished(stack, admin, jobs.stop)
        await admin.close()


async def send(stack: Stack, producer: AIOKafkaProducer, number: int) -> asyncio.Future[object]:
    """Hand a job to the producer; return what tells when it is in the log."""
    tenant = stack.tenants[number % len(stack.tenants)]
    job = Job(id=f"j{number}", tenant=tenant, prompt="x", sampling=Sampling(max_tokens=1))
    place = number % stack.partitions
    sent: asyncio.Future[object] = await producer.send(
        stack.contract.jobs_topic, encode_request(job), job.id.encode(), place
    )
    return sent


async def finished(stack: Stack, admin: AIOKafkaAdminClient, jobs: int) -> None:
    """Wait until the group has committed so many jobs."""
    while True:
        told = await admin.list_consumer_group_offsets(stack.group)
        if sum(each.offset for each in told.values()) >= jobs:
            return
        await asyncio.sleep(0.5)


def resident(process: psutil.Process) -> int:
    """Return what a process has in memory, in bytes."""
    size: int = process.memory_info().rss
    return size


def row(provider: str, metric: str, x: str, size: int) -> Row:
    """Make one of the CSV's rows."""
    return Row.of(
        [size / MB],
        question=QUESTION,
        provider=provider,
        metric=metric,
        x=x,
        unit="MB",
        config=f"{PARTITIONS} partitions, {TENANTS} tenants, 1 token a job, 64 rows",
    )


def held(make: Callable[[], object]) -> int:
    """Return the bytes that what is made holds."""
    gc.collect()
    tracemalloc.start()
    kept = make()
    gc.collect()
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    del kept
    return size


def identities() -> list[FinishedJobs]:
    """Return partitions that remember as much as they may."""
    bound = IdentityBound()
    partitions = [FinishedJobs(bound) for _ in range(PARTITIONS)]
    bound.hold(partitions)
    for number in range(MADE_UP):
        asked = Asked(number.to_bytes(16), number, None)
        partitions[number % PARTITIONS].add("acme", f"j{number}", asked)
    return partitions


def states() -> list[PartitionState]:
    """Return partitions of which nothing was read yet."""
    membership = Membership(1, 1, "m")
    return [
        PartitionState(Partition("jobs", number), membership, 10_000, Checkpoint(10_000, ""))
        for number in range(PARTITIONS)
    ]


def topics() -> KnownTopics:
    """Return a reply topic for each tenant."""
    known = KnownTopics()
    for number in range(TENANTS):
        known.found(f"replies.t{number}", 1)
    return known


def counters() -> Counters:
    """Return what was charged to each tenant, and how long its answers are."""
    charged = Counters()
    for number in range(TENANTS):
        charged.charge(f"t{number}", float(number))
        charged.answered(f"t{number}", number)
    return charged


def single_things() -> Iterator[Row]:
    """Measure what one of each takes."""
    things: tuple[tuple[str, Callable[[], object], int], ...] = (
        ("a finished identity", identities, sum(map(len, identities()))),
        ("a partition that is held", states, PARTITIONS),
        ("a reply topic that is known", topics, TENANTS),
        ("a tenant's counter", counters, TENANTS),
    )
    for provider, make, count in things:
        size = held(make) / count
        yield Row.of(
            [size],
            question=QUESTION,
            provider=provider,
            metric="bytes",
            x="one",
            unit="B",
            config=f"mean of {count}; tracemalloc",
        )


async def measure(bootstrap: str) -> list[Row]:
    """Measure the worker, then the libraries."""
    names = [f"t{number}" for number in range(TENANTS)]
    stack = Stack(bootstrap, partitions=PARTITIONS, reply_partitions=1, tenants=names[:1])
    await make_topics(stack, names)
    async with stack:
        stack.tenants = names
        process = psutil.Process((await stack.add_worker(FULL, "0", max_rows=64)).pid)
        rows = [row("worker", "resident, idle", "0 jobs", resident(process))]
        begin = 0
        for end in JOBS:
            await run(stack, range(begin, end))
            begin = end
            rows.append(row("worker", "resident, at once", f"{end} jobs", resident(process)))
            await asyncio.sleep(IDLE_SECONDS)
            rows.append(row("worker", "resident, idle", f"{end} jobs", resident(process)))
    for provider, more in (("python", ""), ("torch imported", ", torch")):
        code = TOLD.format(more)
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", code), stdout=asyncio.subprocess.PIPE
        )
        told, _ = await child.communicate()
        rows.append(row(provider, "resident", "nothing done", int(told)))
    return [*rows, *single_things()]


if __name__ == "__main__":
    os.environ.setdefault("KAFKA_HEAP_OPTS", HEAP)
    keep_measured(QUESTION, measure)
