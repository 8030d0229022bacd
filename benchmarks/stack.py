"""What the benchmarks of the queue share: a Kafka, topics of their own, workers, and who asks.

Their workers' engine costs nothing (`benchmarks.instant`). `PACED` is the worker as it is around
it, `benchmarks.plain_worker` the same without the protocol.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
import uuid
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from aril import Client
from aril.schemas import Job, Sampling, encode_request, reply_partition, reply_topic
from aril.worker.topics.admin import Contract, TopicPlan, ensure_topics
from benchmarks.record import Row, keep
from tests.support.brokers import running_kafka
from tests.support.workers import WorkerProcess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Sequence

TENANTS = ("acme", "blackbeard", "ledgerly", "visitor")
PACED = "tests.support.paced_worker"  # takes the seconds of a step


def keep_measured(question: str, measure: Callable[[str], Coroutine[Any, Any, list[Row]]]) -> None:
    """Measure on a broker that is there for this alone, given its address; keep the rows."""
    with running_kafka() as kafka:
        keep(question, asyncio.run(measure(kafka.bootstrap)))


def cpu_seconds(pid: int) -> float:
    """Return what all threads of a process have used, to the nanosecond.

    The clock's number is made as clock_getcpuclockid(3) makes it on Linux.
    """
    return time.clock_gettime((~pid << 3) | 2)


class Stack:
    """Topics and a group of their own, with workers and clients that end when it is left."""

    def __init__(
        self,
        bootstrap: str,
        *,
        partitions: int,
        reply_partitions: int,
        tenants: Sequence[str] = TENANTS,
    ) -> None:
        self.bootstrap = bootstrap
        self.tenants = tenants
        self.partitions = partitions
        self.reply_partitions = reply_partitions
        self.group = uuid.uuid4().hex[:6]
        self.names: dict[str, Any] = {
            "jobs_topic": f"jobs-{self.group}",
            "replies_prefix": f"r-{self.group}.",
        }
        self.contract = Contract(dlq_topic=f"dlq-{self.group}", **self.names)
        self.workers: list[WorkerProcess] = []
        self.held = AsyncExitStack()

    async def __aenter__(self) -> Self:
        plan = TopicPlan(jobs_partitions=self.partitions, reply_partitions=self.reply_partitions)
        await ensure_topics(self.bootstrap, self.contract, self.tenants, plan)
        self.logs = Path(self.held.enter_context(tempfile.TemporaryDirectory()))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.held.aclose()

    async def add_worker(
        self, *module: str, checkout: Path | None = None, **settings: object
    ) -> WorkerProcess:
        """Start one more and wait until it takes jobs; ``module`` with its arguments runs.

        It is that of another checkout, where one is given.
        """
        worker = WorkerProcess(
            f"worker-{len(self.workers)}",
            self.logs,
            bootstrap=self.bootstrap,
            group=self.group,
            dlq_topic=self.contract.dlq_topic,
            **({"log_level": "error"} | self.names | settings),
        )
        worker.module, worker.checkout = module, checkout
        self.workers.append(worker)
        await self.held.enter_async_context(worker.started())
        await worker.ready()
        return worker

    async def leave_jobs(self, count: int, tokens: int) -> None:
        """Put jobs into the queue; tenants and partitions take turns."""
        async with AIOKafkaProducer(bootstrap_servers=self.bootstrap) as producer:
            for number in range(count):
                tenant = self.tenants[number % len(self.tenants)]
                sampling = Sampling(max_tokens=tokens)
                job = Job(id=uuid.uuid4().hex, tenant=tenant, prompt="x", sampling=sampling)
                await producer.send(
                    self.contract.jobs_topic,
                    encode_request(job),
                    job.id.encode(),
                    partition=number % self.partitions,
                )

    @asynccontextmanager
    async def clients(self) -> AsyncIterator[list[Client]]:
        """Connect a client for each tenant."""
        async with AsyncExitStack() as held:
            yield [
                await held.enter_async_context(Client(self.bootstrap, tenant, **self.names))
                for tenant in self.tenants
            ]

    async def wire(self) -> Wire:
        """Connect who sends jobs and reads replies as they lie in the log."""
        producer = AIOKafkaProducer(bootstrap_servers=self.bootstrap)
        await producer.start()
        self.held.push_async_callback(producer.stop)
        reader = AIOKafkaConsumer(bootstrap_servers=self.bootstrap)
        await reader.start()
        self.held.push_async_callback(reader.stop)
        places = [
            TopicPartition(reply_topic(self.contract.replies_prefix, tenant), part)
            for tenant in self.tenants
            for part in range(self.reply_partitions)
        ]
        reader.assign(places)
        await reader.seek_to_beginning(*places)
        return Wire(self, producer, reader)


class Wire:
    """Jobs and replies without a client's rules."""

    def __init__(self, stack: Stack, producer: AIOKafkaProducer, reader: AIOKafkaConsumer) -> None:
        self._stack = stack
        self._producer = producer
        self._reader = reader

    def request(self, number: int, tokens: int) -> tuple[str, bytes]:
        """Return a job's id and record; tenants take turns by the number."""
        tenant = self._stack.tenants[number % len(self._stack.tenants)]
        sampling = Sampling(max_tokens=tokens)
        job = Job(id=uuid.uuid4().hex, tenant=tenant, prompt="x", sampling=sampling)
        return job.id, encode_request(job)

    async def send(self, job: str, value: bytes, place: int | None = None) -> None:
        """Hand a job to the producer, for the partition of its key if none is named."""
        if place is None:
            place = reply_partition(job, self._stack.partitions)
        await self._producer.send(self._stack.contract.jobs_topic, value, job.encode(), place)

    async def values(self) -> list[bytes]:
        """Return the replies' records that came meanwhile."""
        return [value for _, value in await self.stamped()]

    async def stamped(self) -> list[tuple[float, bytes]]:
        """Return them with the broker's time of their append, in seconds since the epoch."""
        batches = await self._reader.getmany(timeout_ms=100)
        return [
            (record.timestamp / 1_000, record.value)
            for records in batches.values()
            for record in records
        ]
