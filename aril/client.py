"""The client: a tenant sends jobs and reads their answers as streams.

    async with Client("localhost:9092", tenant="acme") as client:
        async for event in client.stream("Hello!", adapter="support"):
            ...

It has a connection of its own (`aril.connection`), or shares one with other tenants' clients.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Self, TypedDict, Unpack

from aril.errors import ArilError, BadToken, ClientClosed, StreamLost
from aril.find import find
from aril.link import INBOX_EVENTS, Link
from aril.router import Inbox, Mark
from aril.schemas import (
    Cancel,
    Job,
    Message,
    Sampling,
    WeightedAdapter,
    encode_request,
    hash_of_record,
    reply_partition,
    reply_topic,
)
from aril.stream import Completion, ResumeToken, Stream
from aril.texts import texts
from aril.trace_context import trace_headers
from aril.transport import Place

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
    from types import TracebackType

    from aril.signer import Signer
    from aril.trace_context import Headers
    from aril.transport import Transport

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
    """One tenant's view of a connection. An async context manager; all jobs share it."""

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
        link: Link | None = None,
    ) -> None:
        """Prepare to connect to `bootstrap` (host:port[,host:port]) as `tenant`.

        `signer` signs every job and cancel, where workers ask for that. All else is as for
        `aril.Connection`, which gives each of many tenants a client over one `link`: that is then
        used as it is, and somebody else opens and closes it.
        """
        self._shared = link is not None
        self.link: Link = link or Link(
            bootstrap,
            jobs_topic=jobs_topic,
            replies_prefix=replies_prefix,
            security=security,
            inbox_events=inbox_events,
            transport=transport,
        )
        self.tenant = tenant
        self.replies_topic: str = reply_topic(self.link.replies_prefix, tenant)
        self.jobs_topic: str = self.link.jobs_topic.replace("*", tenant)
        self._signer = signer
        self._inboxes: set[Inbox] = set()
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
        """Connect. Raises `BrokerUnavailable`, and `TopicMissing` for one of the two topics."""
        if not self._shared:
            await self.link.open()
        try:
            for topic in (self.jobs_topic, self.replies_topic):
                await self.link.partitions(topic)
        except BaseException:
            await self.close()
            raise
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
        self._closing = True
        for inbox in [*self._inboxes]:
            if not inbox.others:
                self._cancel_soon(inbox.job)
            self.link.router.remove(inbox)
            inbox.fail(ClientClosed("the client was closed"))
        self._inboxes.clear()
        if self._cancels:
            await asyncio.wait(self._cancels, timeout=CLOSE_SECONDS)
        if not self._shared:
            await self.link.close()

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

    def text(
        self,
        prompt: str | None = None,
        *,
        on_reset: Callable[[], object] | None = None,
        **options: Unpack[JobOptions],
    ) -> AsyncGenerator[str, None]:
        """Send a job and return its answer as pieces of text; arguments as for `stream`.

        What a reset does to text that was shown, and `on_reset`: `aril.texts`.
        """
        return texts(self.stream(prompt, **options), on_reset=on_reset)

    def resume(self, token: ResumeToken | str, *, timeout: float | None = None) -> Stream:
        """Return the rest of a stream that an earlier client had begun to read.

        Only what comes after the token is given; a Reset first, if what it covers was withdrawn.
        Raises `BadToken`, and the stream `StreamLost` if the replies are no longer kept.
        """
        if isinstance(token, str):
            token = ResumeToken.parse(token)
        return Stream(self, token.job, partial(self._begin_resumed, token), timeout=timeout)

    async def find(
        self, job: str, *, since: float | None = None, reply_partition: int | None = None
    ) -> ResumeToken:
        """Return the token of a job's answer, for a caller that kept only the job's id.

        It costs reading one reply partition from `since` (in seconds since 1970, when the job was
        sent or before) up to the job's first record; without it, from the log's start. Jobs that
        other clients sent may have named a `reply_partition` of their own: it is to be told here.
        Raises `StreamLost` if no answer has begun since, or if its beginning is no longer kept.
        """
        return await find(
            self.link, self.replies_topic, job, since=since, partition=reply_partition
        )

    async def cancel(self, job: str) -> None:
        """Ask for a job to be ended; if it still runs, its stream ends in `JobFailed`."""
        await self._send(job, encode_request(Cancel(id=job, tenant=self.tenant)))

    def taken(self, inbox: Inbox) -> None:
        """Note that a caller took an event; called by the stream."""
        self.link.router.taken(inbox)

    def leave(self, inbox: Inbox, *, cancel: bool) -> None:
        """Stop reading for a stream; called by the stream."""
        self._inboxes.discard(inbox)
        self.link.router.remove(inbox)
        if cancel and not (self._closing or inbox.stream.finished or inbox.others):
            self._cancel_soon(inbox.job)

    async def _begin_new(
        self, job: Job, trace: Headers, wake: Callable[[], None], kept: Callable[[], bool]
    ) -> Inbox:
        place = await self._reply_place(job.id)
        position = await self.link.end_of(place)
        value = encode_request(job.model_copy(update={"reply_from": position}))
        inbox = Inbox(
            job.id,
            place=place,
            position=position,
            limit=self.link.inbox_events,
            sent=hash_of_record(value),
            limit_bytes=self.link.inbox_bytes,
            wake=wake,
        )
        self._listen(inbox)
        try:
            await self._send(job.id, value, trace)
        except BaseException as error:
            self.leave(inbox, cancel=isinstance(error, asyncio.CancelledError) and not kept())
            raise
        return inbox

    async def _begin_resumed(
        self, token: ResumeToken, wake: Callable[[], None], kept: Callable[[], bool]
    ) -> Inbox:
        try:
            inbox = await self._inbox_at(token, wake)
        except asyncio.CancelledError:
            if not (kept() or self._closing):
                self._cancel_soon(token.job)
            raise
        self._listen(inbox)
        return inbox

    async def _inbox_at(self, token: ResumeToken, wake: Callable[[], None]) -> Inbox:
        if token.partition >= await self.link.partitions(self.replies_topic):
            raise BadToken(f"the reply topic has no partition {token.partition}")
        place, transport = Place(self.replies_topic, token.partition), self.link.transport
        start, end = await transport.log_start(place), await transport.log_end(place)
        if not start <= token.reply_from <= end:
            raise StreamLost(
                f"replies to job {token.job} begin at {token.reply_from}, kept are {start} to {end}"
            )
        return Inbox(
            token.job,
            place=place,
            position=token.reply_from,
            limit=self.link.inbox_events,
            limit_bytes=self.link.inbox_bytes,
            resume_at=Mark(token.resets, token.count),
            wake=wake,
        )

    def _listen(self, inbox: Inbox) -> None:
        if self._closing or self.link.closing:
            raise ClientClosed("the client is being closed")
        self.link.router.add(inbox)
        self._inboxes.add(inbox)

    async def _reply_place(self, job: str) -> Place:
        count = await self.link.partitions(self.replies_topic)
        return Place(self.replies_topic, reply_partition(job, count))

    async def _send(self, job: str, value: bytes, headers: Headers = ()) -> None:
        # The same key and partition for a job and its cancel, so that they stay in order.
        count = await self.link.partitions(self.jobs_topic)
        place = Place(self.jobs_topic, reply_partition(job, count))
        key = job.encode()
        if self._signer is not None:
            headers = (self._sign(self._signer, place, key, value), *headers)
        await self.link.transport.send(place, key, value, headers)

    def _sign(self, signer: Signer, place: Place, key: bytes, value: bytes) -> tuple[str, bytes]:
        return signer.header(
            tenant=self.tenant,
            topic=place.topic,
            partition=place.partition,
            key=key,
            value=value,
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


def _no_option(name: str) -> str:
    told = f"{name!r} is no option of a job"
    return f"{told}: it is a field of sampling" if name in Sampling.model_fields else told


def _message(message: Message | Mapping[str, Any]) -> Message:
    return message if isinstance(message, Message) else Message.model_validate(message)


def _weighted(adapter: WeightedAdapter | Mapping[str, Any]) -> WeightedAdapter:
    if isinstance(adapter, WeightedAdapter):
        return adapter
    return WeightedAdapter.model_validate(adapter, extra="forbid")
