"""A gateway in this process, over the in-memory broker, with a worker that a test plays."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any

from aril import Connection
from aril.gateway.app import make_app
from aril.gateway.settings import GatewaySettings
from aril.gateway.site import Site
from aril.memory import MemoryBroker, MemoryTransport
from aril.schemas import (
    Cancel,
    Conflict,
    DoneRecord,
    ErrorCode,
    ErrorRecord,
    Job,
    Timings,
    TokenLogprobs,
    TokensRecord,
    Usage,
    decode_request,
    encode_conflict,
    encode_redirect,
    encode_reply,
    hash_of_record,
    question_of,
    reply_partition,
)
from tests.support.asgi import Exchange, call
from tests.support.fake_worker import FIRST, WORKER

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from aril.schemas import Epoch, ReplyRecord

PARTITIONS = 3
CHAT_PATH = "/v1/chat/completions"
TEXT_PATH = "/v1/completions"


class Gateway:
    """One gateway; several may stand over one broker."""

    def __init__(
        self,
        broker: MemoryBroker,
        *,
        inbox_events: int = 8,
        transport: MemoryTransport | None = None,
        **settings: Any,
    ) -> None:
        given = {} if "gateway_keys" in settings else {"gateway_tenant": "acme"}
        self.settings = GatewaySettings(**(given | settings))
        self.connection = Connection(
            "", transport=transport or MemoryTransport(broker), inbox_events=inbox_events
        )
        self.site = Site(self.settings, self.connection)
        self.app = make_app(self.site)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Gateway]:
        """Connect it; its watch runs, and it works on batches."""
        async with self.connection:
            self.site.connected.set()
            watching = asyncio.create_task(self.site.watch())
            keeping = asyncio.create_task(self.site.keep())
            try:
                yield self
            finally:
                watching.cancel()
                self.site.drain()
                await asyncio.wait({watching, keeping})
            keeping.result()

    async def call(self, method: str, path: str, body: object = None, **headers: str) -> Exchange:
        """Ask and wait for all of the answer; `last_event_id` is the header Last-Event-ID."""
        return await call(self.app, method, path, body, headers=_headers(headers))

    def opened(self, body: Mapping[str, Any], path: str = CHAT_PATH, **headers: str) -> Exchange:
        """Return a request that is not sent yet."""
        told = {"content-type": "application/json"} | _headers(headers)
        return Exchange(self.app, "POST", path, json.dumps(body).encode(), told)


def _headers(given: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in given.items()}


class Worker:
    """Takes jobs off the broker, and appends what a test says. Who sends an id again is told."""

    def __init__(self, broker: MemoryBroker) -> None:
        self.broker = broker
        self.jobs: dict[str, Job] = {}
        self.sent: list[str] = []
        self.cancelled: set[str] = set()

    async def take(self) -> Job | Cancel:
        """Take the next request; one that was sent before is led to the first answer."""
        _, value = await asyncio.wait_for(self.broker.jobs.get(), 30)
        request = decode_request(value)
        if isinstance(request, Cancel):
            self.cancelled.add(request.id)
            return request
        self.sent.append(request.id)
        first = self.jobs.setdefault(request.id, request)
        if question_of(first) != question_of(request):
            told = Conflict(hash_of_record(value), request.reply_from)
            self.append(request.id, encode_conflict(request.id, told))
        elif first is not request and (first.reply_from or 0) < (request.reply_from or 0):
            self.append(request.id, encode_redirect(request.id, first.reply_from or 0))
        return request

    async def job(self) -> Job:
        """Take the next request, which is a job."""
        request = await self.take()
        assert isinstance(request, Job)
        return request

    def append(self, job: str, value: bytes) -> None:
        """Append one record where a job's replies belong."""
        partition = reply_partition(job, len(self.broker.replies))
        self.broker.append(partition, job.encode(), value)

    def tell(self, *records: ReplyRecord) -> None:
        """Append replies."""
        for record in records:
            self.append(record.job, encode_reply(record))

    async def serve(self) -> None:
        """Answer each job with its own last words, for ever."""
        while True:
            request = await self.take()
            if isinstance(request, Job) and self.sent.count(request.id) == 1:
                prompt = request.prompt or (request.messages or ())[-1].text or ""
                self.tell(*answer_to(request, prompt.split()))


def piece(
    job: str,
    index: int,
    text: str,
    *,
    ids: int = 1,
    logprobs: int | None = None,
    epoch: Epoch = FIRST,
) -> TokensRecord:
    """Make a record of `ids` tokens."""
    return TokensRecord(
        job=job,
        epoch=epoch,
        worker=WORKER,
        index=index,
        ids=tuple(range(index, index + ids)),
        text=text,
        logprobs=None
        if logprobs is None
        else tuple(
            TokenLogprobs(-0.5, tuple((other, -1.0 - other) for other in range(logprobs)))
            for _ in range(ids)
        ),
    )


def end(
    job: str, index: int, text: str = "", *, epoch: Epoch = FIRST, adapter: str | None = None
) -> DoneRecord:
    """Make the end of an answer of `index` tokens."""
    return DoneRecord(
        job=job,
        epoch=epoch,
        worker=WORKER,
        index=index,
        text=text,
        finish_reason="stop",
        usage=Usage(5, index),
        adapter=adapter,
        digest="ab" * 32 if adapter else None,
        base="tiny",
        base_digest="cd" * 32,
        seed=7,
        timings=Timings(1.0, 2.0, 3.0),
    )


def failed(job: str, code: ErrorCode, index: int = 0, **others: Any) -> ErrorRecord:
    """Make an answer's end in an error."""
    return ErrorRecord(
        job=job,
        epoch=FIRST,
        worker=WORKER,
        index=index,
        code=code,
        message=others.pop("message", "told to fail"),
        retryable=code.retryable,
        **others,
    )


def answer_to(job: Job, words: list[str]) -> list[ReplyRecord]:
    """Make a whole answer: a token a word, the last one's text held back to the end."""
    sampling = job.sampling
    parts: list[ReplyRecord] = [
        piece(job.id, at, f"{word} " if at < len(words) - 1 else "", logprobs=sampling.logprobs)
        for at, word in enumerate(words)
    ]
    return [*parts, end(job.id, len(words), words[-1], adapter=job.adapter)]
