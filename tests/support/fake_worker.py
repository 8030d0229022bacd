"""A worker that answers each job with its own prompt, word by word, in proper records."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final, Self

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from aril.schemas import (
    Cancel,
    DoneRecord,
    Epoch,
    ErrorCode,
    ErrorRecord,
    Job,
    ReplyRecord,
    Timings,
    TokensRecord,
    Usage,
    decode_request,
    encode_reply,
    reply_partition,
    reply_topic,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from types import TracebackType

    from aril.memory import MemoryBroker

WORKER: Final = "fake"
FIRST: Final = Epoch(1, 1)
DIGEST: Final = "ab" * 32


def tokens(
    job: str, index: int, text: str, *, ids: tuple[int, ...] = (), epoch: Epoch = FIRST
) -> TokensRecord:
    """Make a tokens record; by default of one token whose id is its index."""
    return TokensRecord(
        job=job, epoch=epoch, worker=WORKER, index=index, ids=ids or (index,), text=text
    )


def done(job: str, index: int, *, epoch: Epoch = FIRST, adapter: str | None = None) -> DoneRecord:
    """Make the terminal of an answer of `index` tokens."""
    return DoneRecord(
        job=job,
        epoch=epoch,
        worker=WORKER,
        index=index,
        text="",
        finish_reason="stop",
        usage=Usage(1, index),
        adapter=adapter,
        digest=DIGEST if adapter else None,
        base="fake",
        seed=0,
        timings=Timings(0.1, 0.2, 0.3),
    )


def answer(
    job: str, words: Sequence[str], *, epoch: Epoch = FIRST, adapter: str | None = None
) -> list[ReplyRecord]:
    """Make a whole answer, one token a word."""
    parts = [tokens(job, index, word, epoch=epoch) for index, word in enumerate(words)]
    return [*parts, done(job, len(words), epoch=epoch, adapter=adapter)]


class FakeWorker:
    """Reads requests and appends replies through two callables; a task of the running loop."""

    digest = DIGEST

    def __init__(
        self,
        take: Callable[[], Awaitable[bytes]],
        append: Callable[[str, ReplyRecord], Awaitable[None]],
    ) -> None:
        self.served = 0
        self.pause = 0.0
        self.cancelled: set[str] = set()
        self.asked: dict[str, Job] = {}
        self._took = asyncio.Event()
        self._take = take
        self._append = append
        self._task: asyncio.Task[None] | None = None
        self._answering: set[asyncio.Task[None]] = set()

    @classmethod
    def on_memory(cls, broker: MemoryBroker) -> Self:
        """Serve the jobs of an in-memory broker."""

        async def take() -> bytes:
            _, value = await broker.jobs.get()
            return value

        async def append(tenant: str, record: ReplyRecord) -> None:
            cls.append_to_memory(broker, record, tenant)
            await asyncio.sleep(0)

        return cls(take, append)

    @classmethod
    @contextlib.asynccontextmanager
    async def on_kafka(
        cls, bootstrap: str, *, jobs_topic: str, replies_prefix: str
    ) -> AsyncIterator[Self]:
        """Serve the jobs of a cluster, from the topic's beginning, without a group."""
        consumer = AIOKafkaConsumer(
            jobs_topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest"
        )
        producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all")

        async def take() -> bytes:
            value: bytes = (await consumer.getone()).value
            return value

        async def append(tenant: str, record: ReplyRecord) -> None:
            topic = reply_topic(replies_prefix, tenant)
            count = len(await producer.partitions_for(topic))
            await producer.send_and_wait(
                topic,
                encode_reply(record),
                key=record.job.encode(),
                partition=reply_partition(record.job, count),
            )

        await consumer.start()
        await producer.start()
        try:
            async with cls(take, append) as worker:
                yield worker
        finally:
            await consumer.stop()
            await producer.stop()

    @staticmethod
    def append_to_memory(broker: MemoryBroker, record: ReplyRecord, tenant: str = "") -> None:
        """Append one reply where its job's replies belong; of which tenant, if there are more."""
        topic = reply_topic("replies.", tenant) if broker.topics else None
        partition = reply_partition(record.job, len(broker.logs(topic)))
        broker.append(partition, record.job.encode(), encode_reply(record), topic=topic)

    @staticmethod
    def decode(value: bytes) -> Job | Cancel | Any:
        """Read a request."""
        return decode_request(value)

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._task is not None
        for task in (self._task, *self._answering):
            task.cancel()
        await asyncio.gather(self._task, *self._answering, return_exceptions=True)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until what was asked has made it true."""
        while not condition():
            self._took.clear()
            await self._took.wait()
            await asyncio.sleep(0)

    async def _run(self) -> None:
        while True:
            request = self.decode(await self._take())
            self._took.set()
            if isinstance(request, Cancel):
                self.cancelled.add(request.id)
            else:
                self.asked[request.id] = request
                self._answering.add(asyncio.create_task(self._serve(request)))

    async def _serve(self, job: Job) -> None:
        for record in self._answer(job):
            await asyncio.sleep(self.pause)
            await self._append(job.tenant, record)
        self.served += 1

    @staticmethod
    def _answer(job: Job) -> list[ReplyRecord]:
        prompt = job.prompt or ((job.messages[-1].text if job.messages else None) or "")
        if prompt.startswith("fail"):
            code = ErrorCode.OVERLOADED
            error = ErrorRecord(
                job=job.id,
                epoch=FIRST,
                worker=WORKER,
                index=0,
                code=code,
                message="told to fail",
                retryable=code.retryable,
            )
            return [error]
        first, *rest = prompt.split(" ")
        words = [first, *(f" {word}" for word in rest)]
        return answer(job.id, words[: job.sampling.max_tokens], adapter=job.adapter)
