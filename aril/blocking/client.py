"""`aril.Client` for threads: it opens a loop in one of its own, and calls into it."""

from __future__ import annotations

import os
import threading
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any, Self, Unpack

from aril import client as asynchronous
from aril.blocking.loop_thread import LoopThread, forked
from aril.blocking.stream import Stream
from aril.blocking.texts import texts
from aril.errors import ClientClosed
from aril.link import INBOX_EVENTS

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping
    from types import TracebackType

    from aril import stream as asynchronous_stream
    from aril.client import JobOptions
    from aril.signer import Signer
    from aril.stream import Completion, ResumeToken
    from aril.transport import Transport


class Client:
    """One tenant's connection, for any number of threads.

    It is opened by `with`, `open`, or the first call that needs it, so one that is made when a
    module is imported may be used in processes that are forked after that. One that was open when
    the process was forked raises ClientClosed in the child. Who waits for an answer and is
    interrupted (Ctrl-C) cancels the job. What a program leaves open is closed when it ends.
    """

    def __init__(
        self,
        bootstrap: str,
        tenant: str,
        *,
        jobs_topic: str = "jobs",
        replies_prefix: str = "replies.",
        security: Mapping[str, Any] | None = None,
        signer: Signer | None = None,
        inbox_events: int = INBOX_EVENTS,
        transport: Transport | None = None,
    ) -> None:
        """Prepare to connect; arguments as for `aril.Client`."""
        self.tenant: str = tenant
        self._ahead = inbox_events
        self._make = partial(
            asynchronous.Client,
            bootstrap,
            tenant,
            jobs_topic=jobs_topic,
            replies_prefix=replies_prefix,
            security=security,
            signer=signer,
            inbox_events=inbox_events,
            transport=transport,
        )
        self._client = self._make()
        self._lock = threading.Lock()
        self._pid: int | None = None  # of the process that has opened it
        self._thread: LoopThread | None = None
        self._closed = False

    @classmethod
    def from_env(cls, tenant: str | None = None, *, inbox_events: int = INBOX_EVENTS) -> Self:
        """Prepare to connect as `ARIL_*` variables say; see `aril.Client.from_env`."""
        from aril.environment import options_from_env  # noqa: PLC0415 - only for those who ask

        return cls(**options_from_env(tenant), inbox_events=inbox_events)

    def open(self) -> Self:
        """Connect, if that has not been done. Raises `BrokerUnavailable`, `TopicMissing`."""
        self._opened()
        return self

    def close(self) -> None:
        """Disconnect; jobs whose streams are unfinished and not detached are cancelled.

        In a process that was forked off it does nothing: what is open belongs to the parent.
        """
        if self._pid not in {None, os.getpid()}:
            return
        with self._lock:
            self._closed = True
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.stop()

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def stream(self, prompt: str | None = None, **options: Unpack[JobOptions]) -> Stream:
        """Return the stream of a new job; it is sent when the stream is started or iterated.

        Arguments and what they raise as for `aril.Client.stream`.
        """
        return self._wrapped(lambda: self._client.stream(prompt, **options))

    def text(
        self,
        prompt: str | None = None,
        *,
        on_reset: Callable[[], object] | None = None,
        **options: Unpack[JobOptions],
    ) -> Generator[str, None, None]:
        """Return a new job's answer piece by piece, the last one included.

        Arguments as for `stream`; what `on_reset` is for says `aril.texts`.
        """
        return texts(self.stream(prompt, **options), on_reset=on_reset)

    def complete(self, prompt: str | None = None, **options: Unpack[JobOptions]) -> Completion:
        """Send a job and return its whole answer; arguments as for `stream`."""
        return self._opened().run(partial(self._client.complete, prompt, **options))

    def resume(self, token: ResumeToken | str, *, timeout: float | None = None) -> Stream:
        """Return the rest of a stream that an earlier client, or another one, had begun to read.

        Raises `BadToken`, and the stream `StreamLost` if the replies are no longer kept.
        """
        return self._wrapped(lambda: self._client.resume(token, timeout=timeout))

    def find(
        self, job: str, *, since: float | None = None, reply_partition: int | None = None
    ) -> ResumeToken:
        """Return the token of an answer of which only the job's id was kept.

        Arguments and what it raises as for `aril.Client.find`.
        """
        find = partial(self._client.find, job, since=since, reply_partition=reply_partition)
        return self._opened().run(find)

    def cancel(self, job: str) -> None:
        """Ask for a job to be ended; if it still runs, its stream ends in `JobFailed`."""
        self._opened().run(partial(self._client.cancel, job))

    def _wrapped(self, make: Callable[[], asynchronous_stream.Stream]) -> Stream:
        async def made() -> asynchronous_stream.Stream:
            return make()  # in the loop's thread, as all that the client is asked

        thread = self._opened()
        return Stream(self, thread, thread.run(made), ahead=self._ahead)

    def _opened(self) -> LoopThread:
        if self._pid not in {None, os.getpid()}:
            raise ClientClosed(forked(self._pid))
        if self._thread is not None:
            return self._thread
        self._pid = os.getpid()  # before the lock: a child of this very moment must not wait for it
        with self._lock:
            if self._closed:
                raise ClientClosed("the client was closed")
            if self._thread is None:
                self._pid = os.getpid()  # again: one that failed before us has taken it back
                self._thread = self._begun()
            return self._thread

    def _begun(self) -> LoopThread:
        thread = LoopThread(self._client, name=f"aril-{self.tenant}")
        try:
            thread.start()
        except BaseException:
            self._client = self._make()  # one that has failed to open is closed for good
            self._pid = None
            raise
        weakref.finalize(self, thread.stop_soon).atexit = False
        return thread
