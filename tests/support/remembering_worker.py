"""A worker in memory that knows a job sent again, ends what is cancelled, and fails as it is told.

It follows decisions 009 and 095: a job under a known id that asks the same is led to the first
answer, one that asks something else is put aside and told so.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import TYPE_CHECKING, Self

from aril.memory import MemoryTransport
from aril.schemas import (
    Cancel,
    Conflict,
    ErrorCode,
    ErrorRecord,
    Job,
    ReplyRecord,
    decode_request,
    encode_conflict,
    encode_redirect,
    hash_of_record,
    question_of,
    reply_partition,
)
from tests.support.fake_worker import FIRST, WORKER, FakeWorker, answer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aril.memory import MemoryBroker
    from aril.transport import Place


def prompt_of(job: Job) -> str:
    """Return what a job asks, as text."""
    return job.prompt or ((job.messages[-1].text if job.messages else None) or "")


class RememberingWorker:
    """Serves a `MemoryBroker`; a task of the running loop."""

    def __init__(self, broker: MemoryBroker, *, words: int = 3) -> None:
        self.first: dict[str, Job] = {}
        """By id, each job as it was first asked."""
        self.ids: dict[str, list[str]] = defaultdict(list)
        """By prompt, the ids that it was asked under, in order."""
        self.put_aside: list[str] = []
        self.cancels: list[str] = []
        self.sent_again = 0
        self.fails: dict[str, list[ErrorRecord | ErrorCode]] = {}
        """By prompt, the errors that it is told before it is answered."""
        self.gate = asyncio.Event()
        """Nothing is answered while it is not set."""
        self.gate.set()
        self._took = asyncio.Event()
        self._words = words
        self._broker = broker
        self._serving: dict[str, asyncio.Task[None]] = {}
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        tasks = [self._task, *self._serving.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            _, value = await self._broker.jobs.get()
            request = decode_request(value)
            self._took.set()
            if isinstance(request, Cancel):
                self._cancel(request.id)
            elif request.id not in self.first:
                self.first[request.id] = request
                self.ids[prompt_of(request)].append(request.id)
                self._serving[request.id] = asyncio.create_task(self._serve(request))
            elif question_of(request) == question_of(self.first[request.id]):
                self._redirect(request.id)
            else:
                self.put_aside.append(request.id)
                self._tell(
                    request.id,
                    encode_conflict(
                        request.id, Conflict(hash_of_record(value), request.reply_from)
                    ),
                )

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until requests have made it true."""
        while not condition():
            self._took.clear()
            await self._took.wait()
            await asyncio.sleep(0)

    def _redirect(self, job: str) -> None:
        self.sent_again += 1
        start = self.first[job].reply_from
        assert start is not None
        self._tell(job, encode_redirect(job, start))

    def _tell(self, job: str, notice: bytes) -> None:
        partition = reply_partition(job, len(self._broker.replies))
        self._broker.append(partition, job.encode(), notice)

    def _cancel(self, job: str) -> None:
        self.cancels.append(job)
        task = self._serving.get(job)
        if task is not None and not task.done():
            task.cancel()
            self._append(self.error(job, ErrorCode.CANCELLED))

    async def _serve(self, job: Job) -> None:
        await self.gate.wait()
        await asyncio.sleep(0)
        for record in self._records(job):
            self._append(record)
            await asyncio.sleep(0)

    def _records(self, job: Job) -> Sequence[ReplyRecord]:
        prompt = prompt_of(job)
        if fails := self.fails.get(prompt):
            fault = fails.pop(0)
            if isinstance(fault, ErrorRecord):
                return [self.error(job.id, fault.code, fault.retry_after_ms)]
            return [self.error(job.id, fault)]
        return answer(job.id, [f"{prompt} {at};" for at in range(self._words)])

    @staticmethod
    def error(job: str, code: ErrorCode, retry_after_ms: int | None = None) -> ErrorRecord:
        """Make the end of a job that has no answer."""
        return ErrorRecord(
            job=job,
            epoch=FIRST,
            worker=WORKER,
            index=0,
            code=code,
            message="told to fail",
            retryable=code.retryable,
            retry_after_ms=retry_after_ms,
        )

    def _append(self, record: ReplyRecord) -> None:
        FakeWorker.append_to_memory(self._broker, record)


class MortalTransport(MemoryTransport):
    """A connection of a process that may die: from then on nothing that it sends arrives."""

    dead = False

    async def send(
        self,
        place: Place,
        key: bytes,
        value: bytes,
        headers: Sequence[tuple[str, bytes]] = (),
    ) -> None:
        """See `Transport`; the acknowledgement comes a moment later."""
        if not self.dead:
            await super().send(place, key, value, headers)
        await asyncio.sleep(0)
