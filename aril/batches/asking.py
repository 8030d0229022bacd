"""One job of a line: sent, read to its end, and sent again where that may help.

It is sent again under the same id where nobody knows what became of it (the brokers were away): it
is the same job, and has one answer. It is sent under the next id where it ended without one: an
identity ends once.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Final

from aril.errors import BrokerUnavailable, JobFailed, JobTimeout, StreamLost, TopicMissing
from aril.openai.answers import Answer
from aril.schemas import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Callable

    from aril.batches.tally import Tally
    from aril.batches.window import Window
    from aril.client import Client
    from aril.openai.jobs import JobFields
    from aril.stream import Stream

TRIES: Final = 4
"""Of a job whose error may pass, the first one included."""
OVERLOADS: Final = 500
"""Refusals as `overloaded` that one job waits out; each shrinks the window, so there are few."""
FIRST_WAIT: Final = 0.5
LONGEST_WAIT: Final = 30.0
OUTAGE_SECONDS: Final = 300.0
"""How long no broker may be there before the run ends, and is to be started again."""
MS: Final = 1_000


class Left(Exception):  # noqa: N818 - named for what happened
    """Not asked, or not to its end, since the run is being left."""


class Asker:
    """Asks jobs as long as it is not told to stop. Lives on one event loop."""

    def __init__(
        self, client: Client, window: Window, tally: Tally, *, timeout: float | None = None
    ) -> None:
        """Prepare; `timeout` is how long one attempt may take, in seconds."""
        self._client = client
        self._window = window
        self._tally = tally
        self._timeout = timeout
        self._sending: dict[asyncio.Task[Stream], Stream] = {}
        self._reading: set[Stream] = set()
        self._stopped = asyncio.Event()
        self._heard = asyncio.get_running_loop().time()  # from the brokers

    async def answer(self, fields: JobFields, id_of: Callable[[int], str]) -> Answer:
        """Return the answer to a job whose attempts have the ids `id_of(0)`, `id_of(1)` ….

        Raises `JobFailed` and the like for what has none, `BrokerUnavailable` when nobody can be
        asked any more, `Left` after `stop`.
        """
        attempt, outages, overloads, tries = 0, 0, 0, 1
        while True:
            try:
                return await self._attempt(fields, id_of(attempt))
            except TopicMissing:
                raise
            except BrokerUnavailable:
                if self._now() - self._heard > OUTAGE_SECONDS:
                    raise
                outages += 1
                await self._pause(outages)
                continue  # under the same id: it may have been sent
            except JobFailed as error:
                if error.code is ErrorCode.OVERLOADED and overloads < OVERLOADS:
                    overloads += 1
                    self._window.overloaded(_wait_of(error, overloads))
                elif _may_pass(error) and tries < TRIES:
                    await self._pause(tries)
                    tries += 1
                else:
                    raise
            except (JobTimeout, StreamLost):
                if tries >= TRIES:
                    raise
                tries += 1
            attempt += 1
            self._tally.retries += 1

    def stop(self) -> None:
        """Send nothing any more."""
        self._stopped.set()

    async def leave(self, *, cancel: bool = False) -> int:
        """Stop reading and let what runs run on, or end it; return how many jobs that are.

        A job that is just being sent cannot be left before it is there: it would be cancelled.
        """
        self.stop()
        left = self._detach()
        if self._sending:
            await asyncio.wait([*self._sending])
            await asyncio.sleep(0)  # what was sent is then known to be
            left += self._detach()
        if cancel:
            ends = (self._client.cancel(job) for job in left)
            await asyncio.gather(*ends, return_exceptions=True)
        return len(left)

    def _detach(self) -> list[str]:
        running = [stream for stream in self._reading if not stream.finished]
        self._reading.clear()
        for stream in running:
            stream.detach()
        return [stream.job for stream in running]

    async def _attempt(self, fields: JobFields, job: str) -> Answer:
        await self._window.enter()
        try:
            if self._stopped.is_set():
                raise Left
            answer = await self._read(fields, job)
        finally:
            self._window.leave()
        self._window.answered()
        return answer

    async def _read(self, fields: JobFields, job: str) -> Answer:
        options: JobFields = {**fields, "job_id": job, "timeout": self._timeout}
        stream = self._client.stream(**options)
        self._tally.jobs += 1
        # In a task of its own, for which `leave` can wait: cancelled midway it cancels the job.
        sending = asyncio.create_task(stream.start())
        self._sending[sending] = stream
        sending.add_done_callback(self._sent)
        try:
            await sending
        except JobTimeout as error:  # nobody knows whether it was sent
            raise BrokerUnavailable(f"job {job} could not be sent in time") from error
        answer = Answer(job)
        try:
            async for event in stream:
                self._heard = self._now()
                answer.add(event)
        finally:
            self._reading.discard(stream)
        if answer.end is None:
            raise Left  # it was detached
        return answer

    def _sent(self, sending: asyncio.Task[Stream]) -> None:
        stream = self._sending.pop(sending)
        if not sending.cancelled() and sending.exception() is None:
            self._heard = self._now()
            self._reading.add(stream)

    async def _pause(self, times: int) -> None:
        try:
            async with asyncio.timeout(_backoff(times)):
                await self._stopped.wait()
        except TimeoutError:
            return
        raise Left

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


def _may_pass(error: JobFailed) -> bool:
    """Whether another attempt may be answered.

    Also one that was cancelled: by an earlier run, most likely, that had waited long enough for it.
    """
    return error.retryable or error.code is ErrorCode.CANCELLED


def _wait_of(error: JobFailed, times: int) -> float:
    if error.retry_after_ms is None:
        return _backoff(times)
    return error.retry_after_ms / MS


def _backoff(times: int) -> float:
    """Return a wait that doubles each time, in seconds, so that not all come back at once."""
    longest = min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(times, 10))
    return random.uniform(longest / 2, longest)
