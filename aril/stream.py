"""One job as its caller sees it: events, the whole answer, and the token to go on from."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, Self

from aril.errors import BadToken, ClientClosed, JobFailed, JobTimeout
from aril.schemas import DoneEvent, ErrorEvent, limits

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping
    from types import TracebackType

    from aril.router import Inbox
    from aril.schemas import (
        Activation,
        Event,
        FinishReason,
        MixedAdapter,
        PromptLogprobs,
        Timings,
        Usage,
    )


# Digits enough for an int64 each, then what a job's id is made of.
_TOKEN: Final = re.compile(
    r"(\d{1,19})\.(\d{1,19})\.(\d{1,19})\.(\d{1,19})\.([\w.-]{1,64})", re.ASCII
)
_NUMBERS: Final = ("partition", "reply_from", "count", "resets")
_MOST: Final = (limits.MAX_PARTITION, limits.MAX_OFFSET, limits.MAX_INDEX, limits.MAX_INDEX)


@dataclass(frozen=True, slots=True)
class ResumeToken:
    """Where a caller stands in a job's replies; `str` and `parse` make it text and back.

    `partition` and `reply_from` say where the replies begin, `count` how many visible tokens the
    caller has been given since the last of `resets` resets.
    """

    job: str
    partition: int
    reply_from: int
    count: int = 0
    resets: int = 0

    def __str__(self) -> str:
        return f"{self.partition}.{self.reply_from}.{self.count}.{self.resets}.{self.job}"

    @classmethod
    def parse(cls, text: str) -> ResumeToken:
        """Read what `str` wrote. Raises `BadToken`."""
        found = _TOKEN.fullmatch(text)
        if found is None:
            raise BadToken("a token is <partition>.<reply_from>.<count>.<resets>.<job id>")
        *numbers, job = found.groups()
        for name, number, most in zip(_NUMBERS, map(int, numbers), _MOST, strict=True):
            if number > most:
                raise BadToken(f"a token's {name} is at most {most}")
        partition, reply_from, count, resets = map(int, numbers)
        return cls(job, partition, reply_from, count, resets)


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """A finished answer, whole, whatever was streamed before."""

    job: str
    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    usage: Usage
    adapter: str | None
    digest: str | None
    activation: Activation | None
    adapters: tuple[MixedAdapter, ...]
    base: str
    base_digest: str | None
    earlier_bases: tuple[str, ...]
    seed: int
    timings: Timings
    resets: int
    metadata: Mapping[str, str]
    prompt_logprobs: PromptLogprobs | None = None  # a row a token, None for the first

    @property
    def adapter_id(self) -> str | None:
        """`name@digest` of the one adapter that answered; None for the backbone or a mixture."""
        return f"{self.adapter}@{self.digest}" if self.adapter else None

    @property
    def adapter_active_from(self) -> int | None:
        """The prompt's token from which on the adapter worked.

        None if it did nowhere: there was none, or its invocation is not in the prompt.
        """
        if self.activation is not None:
            return self.activation.start
        return 0 if self.adapter or self.adapters else None


Begin = Callable[[Callable[[], None], Callable[[], bool]], Awaitable["Inbox"]]
"""Starts to read for a job, and sends it if it is new.

It is given what to call when events arrive, and what tells whether the job is left running where
this is cancelled: else it is ended, also if nobody knows whether it was sent.
"""


class StreamOwner(Protocol):
    """What a stream asks of its client."""

    def taken(self, inbox: Inbox) -> None:
        """Note that the caller took an event."""

    def leave(self, inbox: Inbox, *, cancel: bool) -> None:
        """Stop reading for a stream; with `cancel`, end its job too."""

    async def cancel(self, job: str) -> None:
        """End a job."""


class Stream:
    """The events of one job: iterate it once, or await `result`.

    Nothing is sent before the first of `start`, iteration, `result` or `async with`. A caller that
    stops iterating, is cancelled, or leaves the `async with` block early cancels the job, unless
    `keep` was called; `detach` leaves it running. Raises `JobFailed`, `JobConflict`, `JobTimeout`,
    `StreamLost`, `BrokerUnavailable`.
    """

    def __init__(
        self, owner: StreamOwner, job: str, begin: Begin, *, timeout: float | None
    ) -> None:
        self.job = job
        self._owner = owner
        self._begin = begin
        self._timeout = timeout
        self._deadline: float | None = None
        self._arrived = asyncio.Event()
        self._inbox: Inbox | None = None
        self._over = False
        self._left = False
        self._kept = False
        self._result: Completion | None = None

    @property
    def token(self) -> ResumeToken:
        """Where the caller stands now. Raises `ClientClosed` before the stream has started."""
        inbox = self._started()
        given = inbox.given
        return ResumeToken(self.job, inbox.place.partition, inbox.start, given.tokens, given.resets)

    @property
    def sent(self) -> str | None:
        """SHA-256 of the job's record, in hexadecimal; None where none was sent.

        By it a worker names the record of a job that is not answered since another has its id.
        """
        return self._started().sent

    @property
    def taken_bytes(self) -> int:
        """What the records of all events had that were handed over, in bytes."""
        return self._started().taken_bytes

    @property
    def finished(self) -> bool:
        """Whether the job's terminal was handed over."""
        return self._over

    async def start(self, wake: Callable[[], None] | None = None) -> Self:
        """Send the job, or begin to read a resumed one; harmless when that is done.

        With `wake` the stream is for `poll`: it is called when there may be something to take, and
        nobody's time is measured from then on.
        """
        if self._inbox is None:
            if self._timeout is not None:
                self._deadline = asyncio.get_running_loop().time() + self._timeout
            patience = asyncio.timeout_at(self._deadline)
            try:
                async with patience:
                    self._inbox = await self._begin(wake or self._arrived.set, lambda: self._kept)
            except TimeoutError:
                if not patience.expired():
                    raise
                raise self._timed_out() from None
            finally:
                del patience  # it holds the task, that its error, and that this frame with the job
        return self

    def poll(self) -> Event | None:
        """Return the next event if it has arrived, else None; raises what iteration raises.

        For whoever reads many streams in one task. It ends with `leave`, whatever happens.
        """
        inbox = self._started()
        if self._over or self._left:
            return None
        event = inbox.take()
        if event is None:
            if inbox.failure is not None:
                self.leave(cancel=False)  # the job may be well: its token can be tried again
                try:
                    raise inbox.failure
                finally:
                    inbox.failure = None  # its traceback holds who has raised it: us
            return None
        self._owner.taken(inbox)
        if isinstance(event, ErrorEvent):
            raise self._failed(event)
        if isinstance(event, DoneEvent):
            self._finish(event)
        return event

    async def result(self) -> Completion:
        """Wait for the end and return the whole answer, resets withdrawn."""
        async for _ in self:
            pass
        if self._result is None:
            raise ClientClosed(f"the stream of job {self.job} was left before its end")
        return self._result

    def keep(self) -> Self:
        """From now on leave the job running when this stream is left early, or times out.

        For who may come back: `token` can be resumed. Closing the client still cancels what is
        being read.
        """
        self._kept = True
        return self

    async def cancel(self) -> None:
        """Ask the worker to end the job; its stream then ends in `JobFailed` (cancelled)."""
        await self._owner.cancel(self.job)

    def detach(self) -> ResumeToken:
        """Stop reading but let the job run; return the token to resume it with."""
        token = self.token
        self.leave(cancel=False)
        return token

    async def aclose(self) -> None:
        """Stop reading; cancels the job unless its end has been seen."""
        self.leave(cancel=True)

    def leave(self, *, cancel: bool) -> None:
        """Stop reading; with `cancel` as `aclose`. Harmless if that was done, or never begun."""
        if self._inbox is not None and not self._left:
            self._left = True
            self._arrived.set()  # whoever waits in another task
            self._owner.leave(self._inbox, cancel=cancel and not (self._over or self._kept))

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __aiter__(self) -> AsyncIterator[Event]:
        return self._events()

    async def _events(self) -> AsyncGenerator[Event, None]:
        # A generator, because the event loop closes one that a caller has dropped in mid-answer.
        try:
            await self.start()
            while not (self._over or self._left):
                event = self.poll()
                if event is None:
                    await self._wait()
                else:
                    yield event
        finally:
            self.leave(cancel=True)

    async def _wait(self) -> None:
        self._arrived.clear()
        try:
            async with asyncio.timeout_at(self._deadline):
                await self._arrived.wait()
        except TimeoutError:
            raise self._timed_out() from None

    def _timed_out(self) -> JobTimeout:
        return JobTimeout(self.job, self._timeout or 0.0)

    def _failed(self, event: ErrorEvent) -> JobFailed:
        self._over = True
        return JobFailed(
            self.job,
            event.code,
            event.message,
            retryable=event.retryable,
            limit=event.limit,
            given=event.given,
            retry_after_ms=event.retry_after_ms,
        )

    def _finish(self, event: DoneEvent) -> None:
        self._over = True
        visible = self._started().stream
        self._result = Completion(
            job=self.job,
            text=visible.text,
            token_ids=tuple(visible.token_ids),
            finish_reason=event.finish_reason,
            usage=event.usage,
            adapter=event.adapter,
            digest=event.digest,
            activation=event.activation,
            adapters=event.adapters,
            base=event.base,
            base_digest=event.base_digest,
            earlier_bases=event.earlier_bases,
            seed=event.seed,
            timings=event.timings,
            resets=visible.resets,
            metadata=event.metadata,
            prompt_logprobs=event.prompt_logprobs,
        )

    def _started(self) -> Inbox:
        if self._inbox is None:
            raise ClientClosed(f"job {self.job} has not been started")
        return self._inbox
