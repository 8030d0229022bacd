"""The client: a tenant sends jobs and reads their answers as streams.

    async with Client("localhost:9092", tenant="acme") as client:
        async for event in client.stream("Hello!", adapter="support"):
            ...

One producer, and one reader of the tenant's reply topic for however many jobs. The reader has no
consumer group: each partition is read from where its jobs need it, and not at all while none does.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Self, TypedDict, Unpack

from aril.errors import ArilError, BadToken, BrokerUnavailable, ClientClosed, StreamLost
from aril.router import Inbox, Mark, Router
from aril.schemas import (
    Cancel,
    Job,
    Message,
    Sampling,
    WeightedAdapter,
    encode_request,
    reply_partition,
    reply_topic,
)
from aril.stream import Completion, ResumeToken, Stream
from aril.trace_context import trace_headers
from aril.transport import OutOfRange

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

    from aril.signer import Signer
    from aril.trace_context import Headers
    from aril.transport import Partitions, Transport

# Events that one job may be ahead of its caller: a few screens of text, some hundred kilobytes.
INBOX_EVENTS: Final = 512
# How long closing waits for cancel records to be acknowledged.
CLOSE_SECONDS: Final = 5.0
MS: Final = 1_000


class JobOptions(TypedDict, total=False):
    """What a job may say beside its prompt; names and meanings as in `aril.schemas.Job`.

    `timeout` and `deadline` are in seconds: after `timeout` the caller stops waiting, after
    `deadline` (from the moment the broker has the job) no worker begins it any more. `traceparent`
    and `tracestate` say which trace it belongs to (`aril.trace_context`).
    """

    messages: Sequence[Message | Mapping[str, Any]]
    tools: Sequence[Mapping[str, Any]]
    chat_template_kwargs: Mapping[str, Any]
    add_generation_prompt: bool
    continue_final_message: bool
    token_ids: Sequence[int]
    adapter: str | None
    adapters: Sequence[WeightedAdapter | Mapping[str, Any]] | None
    adapter_scale: float
    sampling: Sampling | Mapping[str, Any]
    priority: int
    metadata: Mapping[str, str]
    job_id: str
    deadline: float | None
    timeout: float | None
    traceparent: str | None
    tracestate: str | None


class Client:
    """One tenant's connection. An async context manager; all jobs share it."""

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
        """Prepare to connect to `bootstrap` (host:port[,host:port]) as `tenant`.

        `security` is passed to aiokafka: `security_protocol`, `ssl_context`, `sasl_mechanism`,
        `sasl_plain_username`, `sasl_plain_password`; connections that authenticate by SASL are
        renewed before the brokers end them. `signer` signs every job and cancel, where
        workers ask for that. `transport` replaces Kafka, as in tests.
        """
        self.tenant = tenant
        reply_to = reply_topic(replies_prefix, tenant)
        if transport is None:
            from aril.kafka import KafkaTransport  # noqa: PLC0415 - 0.1 s, and not for twins

            transport = KafkaTransport(
                bootstrap, jobs_topic=jobs_topic, reply_topic=reply_to, security=security
            )
        self._transport = transport
        self._jobs_topic = jobs_topic
        self._signer = signer
        self._inbox_events = inbox_events
        self._router = Router(follow=self._follow, unfollow=transport.unfollow)
        self._partitions: Partitions | None = None
        self._reader: asyncio.Task[None] | None = None
        self._work = asyncio.Event()
        self._closing = False
        self._cancels: set[asyncio.Task[None]] = set()

    @classmethod
    def from_env(cls, tenant: str | None = None, *, inbox_events: int = INBOX_EVENTS) -> Self:
        """Prepare to connect as `ARIL_*` variables say, by the names that workers read too.

        These are ARIL_BOOTSTRAP, the topics', those of TLS and SASL, ARIL_TENANT unless `tenant`
        is named here, and ARIL_KEY, a file to sign with. Raises `BadSetting` or `BadKey`.
        """
        from aril.environment import options_from_env  # noqa: PLC0415 - only for those who ask

        return cls(**options_from_env(tenant), inbox_events=inbox_events)

    async def __aenter__(self) -> Self:
        self._partitions = await self._transport.open()
        self._reader = asyncio.create_task(self._read(), name=f"aril-replies-{self.tenant}")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Disconnect; jobs whose streams are unfinished and not detached are cancelled."""
        reader, self._reader = self._reader, None
        self._closing = True
        self._work.set()
        for job in self._router.jobs():
            self._cancel_soon(job)
        self._router.fail_all(lambda: ClientClosed("the client was closed"))
        if self._cancels:
            await asyncio.wait(self._cancels, timeout=CLOSE_SECONDS)
        if reader is not None:
            await asyncio.wait([reader])  # unlike awaiting it, this never cancels a poll
        self._partitions = None
        await self._transport.close()
        if reader is not None:
            reader.result()

    def stream(self, prompt: str | None = None, **options: Unpack[JobOptions]) -> Stream:
        """Return the stream of a new job; it is sent when the stream is started or iterated.

        Exactly one of `prompt`, `messages` and `token_ids` must be given. Raises ValueError (mostly
        a pydantic ValidationError) when the job breaks a limit of the contract, TypeError for an
        option that there is not.
        """
        if unknown := sorted(options.keys() - JobOptions.__annotations__.keys()):
            raise TypeError(_no_option(unknown[0]))
        job = self._job(prompt, options)
        trace = trace_headers(options.get("traceparent"), options.get("tracestate"))
        begin = partial(self._begin_new, job, trace)
        return Stream(self, job.id, begin, timeout=options.get("timeout"))

    async def complete(
        self, prompt: str | None = None, **options: Unpack[JobOptions]
    ) -> Completion:
        """Send a job and return its whole answer; arguments as for `stream`."""
        return await self.stream(prompt, **options).result()

    def resume(self, token: ResumeToken | str, *, timeout: float | None = None) -> Stream:
        """Return the rest of a stream that an earlier client had begun to read.

        Only what comes after the token is given; a Reset first, if what it covers was withdrawn.
        Raises `BadToken`, and the stream `StreamLost` if the replies are no longer kept.
        """
        if isinstance(token, str):
            token = ResumeToken.parse(token)
        return Stream(self, token.job, partial(self._begin_resumed, token), timeout=timeout)

    async def cancel(self, job: str) -> None:
        """Ask for a job to be ended; if it still runs, its stream ends in `JobFailed`."""
        await self._send(job, encode_request(Cancel(id=job, tenant=self.tenant)))

    def taken(self, inbox: Inbox) -> None:
        """Note that a caller took an event; called by the stream."""
        self._router.taken(inbox)

    def leave(self, inbox: Inbox, *, cancel: bool) -> None:
        """Stop reading for a stream; called by the stream."""
        self._router.remove(inbox)
        if cancel and not self._closing and not inbox.stream.finished:
            self._cancel_soon(inbox.job)

    async def _begin_new(self, job: Job, trace: Headers, wake: Callable[[], None]) -> Inbox:
        place = reply_partition(job.id, self._opened().replies)
        inbox = Inbox(
            job.id,
            partition=place,
            position=await self._end_of(place),
            limit=self._inbox_events,
            wake=wake,
        )
        self._listen(inbox)
        try:
            value = encode_request(job.model_copy(update={"reply_from": inbox.start}))
            await self._send(job.id, value, trace)
        except BaseException as error:
            self.leave(inbox, cancel=isinstance(error, asyncio.CancelledError))
            raise
        return inbox

    async def _begin_resumed(self, token: ResumeToken, wake: Callable[[], None]) -> Inbox:
        if token.partition >= self._opened().replies:
            raise BadToken(f"the reply topic has no partition {token.partition}")
        start = await self._transport.log_start(token.partition)
        end = await self._transport.log_end(token.partition)
        if not start <= token.reply_from <= end:
            raise StreamLost(
                f"replies to job {token.job} begin at {token.reply_from}, kept are {start} to {end}"
            )
        inbox = Inbox(
            token.job,
            partition=token.partition,
            position=token.reply_from,
            limit=self._inbox_events,
            resume_at=Mark(token.resets, token.count),
            wake=wake,
        )
        self._listen(inbox)
        return inbox

    def _listen(self, inbox: Inbox) -> None:
        if self._closing:
            raise ClientClosed("the client is being closed")
        self._router.add(inbox)

    async def _end_of(self, place: int) -> int:
        # What the reader will read next is a lower bound as good as the end, and costs nothing.
        position = self._router.position(place)
        return await self._transport.log_end(place) if position is None else position

    async def _send(self, job: str, value: bytes, headers: Headers = ()) -> None:
        # The same key and partition for a job and its cancel, so that they stay in order.
        place = reply_partition(job, self._opened().jobs)
        key = job.encode()
        if self._signer is not None:
            headers = (self._sign(self._signer, place, key, value), *headers)
        await self._transport.send(place, key, value, headers)

    def _sign(self, signer: Signer, place: int, key: bytes, value: bytes) -> tuple[str, bytes]:
        return signer.header(
            tenant=self.tenant, topic=self._jobs_topic, partition=place, key=key, value=value
        )

    def _cancel_soon(self, job: str) -> None:
        task = asyncio.create_task(self._cancel_quietly(job))
        self._cancels.add(task)
        task.add_done_callback(self._cancels.discard)

    async def _cancel_quietly(self, job: str) -> None:
        with contextlib.suppress(ArilError):
            await self.cancel(job)

    def _job(self, prompt: str | None, options: JobOptions) -> Job:
        messages, deadline = options.get("messages"), options.get("deadline")
        adapters = options.get("adapters")
        token_ids, sampling = options.get("token_ids"), options.get("sampling", Sampling())
        return Job(
            id=options.get("job_id") or uuid.uuid4().hex,
            tenant=self.tenant,
            adapter=options.get("adapter"),
            adapters=None if adapters is None else tuple(map(_weighted, adapters)),
            adapter_scale=options.get("adapter_scale", 1.0),
            prompt=prompt,
            messages=None if messages is None else tuple(map(_message, messages)),
            tools=tuple(map(dict, options["tools"])) if options.get("tools") else None,
            chat_template_kwargs=dict(options.get("chat_template_kwargs", {})),
            add_generation_prompt=options.get("add_generation_prompt", True),
            continue_final_message=options.get("continue_final_message", False),
            token_ids=None if token_ids is None else tuple(token_ids),
            sampling=Sampling.model_validate(sampling, extra="forbid"),
            priority=options.get("priority", 0),
            deadline_ms=None if deadline is None else int(deadline * MS),
            metadata=dict(options.get("metadata", {})),
        )

    def _opened(self) -> Partitions:
        if self._partitions is None:
            raise ClientClosed("the client is not open: use `async with Client(...)`")
        return self._partitions

    def _follow(self, partition: int, offset: int) -> None:
        self._transport.follow(partition, offset)
        self._work.set()

    async def _read(self) -> None:
        try:
            while not self._closing:
                if self._router.following:
                    await self._read_once()
                else:
                    self._work.clear()
                    await self._work.wait()
        except BaseException:
            self._router.fail_all(lambda: ClientClosed("reading replies has failed"))
            raise

    async def _read_once(self) -> None:
        try:
            # Nothing may be awaited between these two: a seek would make the records stale.
            records = await self._transport.poll()
            self._router.deliver(records)
        except OutOfRange as error:
            place = error.partition
            start = await self._transport.log_start(place)
            self._router.trim(place, start, await self._transport.log_end(place))
        except BrokerUnavailable as error:
            text = str(error)
            self._router.fail_all(lambda: BrokerUnavailable(text))


def _no_option(name: str) -> str:
    told = f"{name!r} is no option of a job"
    return f"{told}: it is a field of sampling" if name in Sampling.model_fields else told


def _message(message: Message | Mapping[str, Any]) -> Message:
    return message if isinstance(message, Message) else Message.model_validate(message)


def _weighted(adapter: WeightedAdapter | Mapping[str, Any]) -> WeightedAdapter:
    if isinstance(adapter, WeightedAdapter):
        return adapter
    return WeightedAdapter.model_validate(adapter, extra="forbid")
