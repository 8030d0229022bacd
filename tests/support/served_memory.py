"""A broker in memory and its worker, in whichever loop opens it: for programs run as a whole."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from aril.memory import MemoryBroker, MemoryTransport
from aril.schemas import Cancel, DoneRecord, Job, TokensRecord
from tests.support.fake_worker import FakeWorker

if TYPE_CHECKING:
    from aril.schemas import ReplyRecord


class TailWorker(FakeWorker):
    """Answers with the prompt, and keeps its last word for the `done`, as real workers may."""

    @staticmethod
    def _answer(job: Job) -> list[ReplyRecord]:
        records = FakeWorker._answer(job)
        match records:
            case [*head, TokensRecord() as last, DoneRecord() as end]:
                return [*head, replace(last, text=""), replace(end, text=last.text)]
        return records


class ServedTransport(MemoryTransport):
    """A connection to a broker of its own, whose worker answers while it is open."""

    def __init__(self, kind: type[FakeWorker] = TailWorker, *, reply_partitions: int = 4) -> None:
        self.broker = MemoryBroker(reply_partitions=reply_partitions)
        super().__init__(self.broker)
        self.worker = kind.on_memory(self.broker)

    async def open(self) -> None:
        """See `Transport`."""
        # They belong to the loop that first waits for them, and this may be another one.
        self.broker.jobs, self.broker.changed = asyncio.Queue(), asyncio.Event()
        await super().open()
        await self.worker.__aenter__()

    async def close(self) -> None:
        """See `Transport`."""
        await self.worker.__aexit__(None, None, None)
        await super().close()

    def cancelled(self) -> set[str]:
        """Return the jobs that were cancelled, those that the worker has not heard of included."""
        while not self.broker.jobs.empty():
            request = FakeWorker.decode(self.broker.jobs.get_nowait()[1])
            if isinstance(request, Cancel):
                self.worker.cancelled.add(request.id)
        return self.worker.cancelled
