"""The client over the in-memory transport: streams, cancels, time-outs, resuming, back-pressure."""

from __future__ import annotations

import asyncio
import gc
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from aril import (
    BadToken,
    BrokerUnavailable,
    Client,
    ClientClosed,
    DoneEvent,
    ErrorCode,
    JobFailed,
    JobTimeout,
    ReplyUnreadable,
    ResetEvent,
    ResumeToken,
    StreamLost,
    TokensEvent,
)
from aril.memory import MemoryBroker, MemoryTransport
from aril.schemas import (
    Cancel,
    Epoch,
    ErrorRecord,
    Job,
    ReplyRecord,
    TokenLogprobs,
    reply_partition,
)
from tests.support.fake_worker import FakeWorker, answer, done, tokens

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aril.transport import Place

PARTITIONS = 4


@pytest.fixture
def broker() -> MemoryBroker:
    """Return a broker with one reply topic."""
    return MemoryBroker(reply_partitions=PARTITIONS)


@pytest.fixture
async def worker(broker: MemoryBroker) -> AsyncIterator[FakeWorker]:
    """Run a worker that answers every job word by word."""
    async with FakeWorker.on_memory(broker) as worker:
        yield worker


def connect(broker: MemoryBroker, *, inbox_events: int = 512, poll_records: int = 500) -> Client:
    """Return a client of tenant acme on this broker."""
    transport = MemoryTransport(broker, poll_records=poll_records)
    return Client("", "acme", transport=transport, inbox_events=inbox_events)


def put(broker: MemoryBroker, record: ReplyRecord) -> None:
    """Append one reply where its job's replies belong."""
    FakeWorker.append_to_memory(broker, record)


async def test_events_then_completion(broker: MemoryBroker, worker: FakeWorker) -> None:
    """A stream gives the tokens in order and one terminal; joined texts are the answer."""
    async with connect(broker) as client:
        stream = client.stream("two words", adapter="poet")
        events = [event async for event in stream]
        completion = await client.complete("two words", adapter="poet")
    *parts, last = events
    assert all(isinstance(event, TokensEvent) for event in parts)
    assert isinstance(last, DoneEvent)
    assert "".join(event.text for event in parts if isinstance(event, TokensEvent)) == "two words"
    assert completion.text == "two words"
    assert completion.token_ids == (0, 1)
    assert completion.finish_reason == "stop"
    assert completion.adapter_id == f"poet@{worker.digest}"
    assert completion.resets == 0


async def test_what_is_told_of_a_prompt(broker: MemoryBroker) -> None:
    """A completion has the rows that its terminal has."""
    rows = (None, TokenLogprobs(-0.5, ((7, -0.25),)))
    async with connect(broker) as client:
        stream = client.stream("hi", sampling={"prompt_logprobs": 1}, job_id="a")
        await stream.start()
        put(broker, replace(done("a", 0), prompt_logprobs=rows))
        assert (await stream.result()).prompt_logprobs == rows


async def test_job_record(broker: MemoryBroker) -> None:
    """The record sent holds what was asked, and the end of its reply partition as reply_from."""
    for partition in range(PARTITIONS):
        for _ in range(partition + 3):
            broker.append(partition, b"other", b"")
    async with connect(broker) as client:
        stream = await client.stream(
            messages=[{"role": "user", "content": "hi"}],
            sampling={"max_tokens": 7, "stop": ["x"]},
            job_id="job-1",
            deadline=1.5,
            metadata={"trace": "9"},
        ).start()
        key, value = await broker.jobs.get()
        stream.detach()
    job = FakeWorker.decode(value)
    assert isinstance(job, Job)
    assert key == b"job-1"
    assert (job.tenant, job.deadline_ms, job.metadata) == ("acme", 1500, {"trace": "9"})
    assert (job.sampling.max_tokens, job.sampling.stop) == (7, ("x",))
    assert job.reply_from == reply_partition("job-1", PARTITIONS) + 3


async def test_text_is_the_whole_answer(broker: MemoryBroker, worker: FakeWorker) -> None:
    """Piece by piece, with what comes at the very end."""
    async with connect(broker) as client:
        pieces = [piece async for piece in client.text("one two three")]
    assert (len(pieces), "".join(pieces)) == (3, "one two three")
    assert worker.served == 1


async def test_many_jobs_share_a_reader(broker: MemoryBroker, worker: FakeWorker) -> None:
    """A hundred jobs at once over one reader each get their own answer, whole."""
    prompts = [f"job number {number} of many" for number in range(100)]
    async with connect(broker, inbox_events=3, poll_records=7) as client:
        answers = await asyncio.gather(*(client.complete(prompt) for prompt in prompts))
    assert [completion.text for completion in answers] == prompts
    assert worker.served == len(prompts)


async def test_idle_reader_follows_nothing(broker: MemoryBroker, worker: FakeWorker) -> None:
    """Partitions are read only while a job needs them."""
    transport = MemoryTransport(broker)
    async with Client("", "acme", transport=transport) as client:
        async with client.stream("hello there") as stream:
            assert {place.partition for place in transport.followed} == {stream.token.partition}
            await stream.result()
        assert transport.followed == {}
    assert worker.served == 1


async def test_slow_caller_loses_nothing(broker: MemoryBroker) -> None:
    """A full inbox stalls only its own job; what it left out is read again from the log."""
    async with connect(broker, inbox_events=4) as client:
        slow = await client.stream("slow", job_id="slow").start()
        for index in range(50):
            put(broker, tokens("slow", index, f"{index} "))
        put(broker, done("slow", 50))
        other = await client.stream("quick", job_id="quick").start()
        for record in answer("quick", ["quick"]):
            put(broker, record)
        assert (await other.result()).text == "quick"
        events = [event async for event in slow]
    assert [event.index for event in events if isinstance(event, TokensEvent)] == [*range(50)]


async def test_error_reply_is_raised(broker: MemoryBroker) -> None:
    """An error record ends the stream in JobFailed, with the limit and the value given."""
    async with connect(broker) as client:
        stream = await client.stream("x", job_id="a").start()
        put(
            broker,
            ErrorRecord(
                job="a",
                epoch=Epoch(1, 1),
                worker="w",
                index=0,
                code=ErrorCode.PROMPT_TOO_LONG,
                message="the prompt is too long",
                retryable=False,
                limit=10,
                given=12,
            ),
        )
        with pytest.raises(
            JobFailed, match=r"prompt_too_long: .* \(limit 10, given 12\)"
        ) as caught:
            await stream.result()
    assert (caught.value.code, caught.value.retryable) == (ErrorCode.PROMPT_TOO_LONG, False)
    assert (caught.value.limit, caught.value.given) == (10, 12)


async def next_cancel(broker: MemoryBroker) -> str:
    """Return the id in the next cancel record, passing over jobs."""
    while True:
        _, value = await broker.jobs.get()
        request = FakeWorker.decode(value)
        if isinstance(request, Cancel):
            return request.id


async def test_dropped_iteration_cancels(broker: MemoryBroker) -> None:
    """A caller that breaks out of the loop cancels the job."""
    async with connect(broker) as client:
        stream = await client.stream("x", job_id="a").start()
        put(broker, tokens("a", 0, "one"))
        async for _ in stream:
            break
        gc.collect()
        assert await next_cancel(broker) == "a"


async def test_cancelled_task_cancels(broker: MemoryBroker) -> None:
    """A task that is cancelled while it waits for tokens cancels its job."""
    async with connect(broker) as client:
        task = asyncio.create_task(client.complete("x", job_id="a"))
        await broker.jobs.get()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await next_cancel(broker) == "a"


async def test_closing_cancels_what_is_open(broker: MemoryBroker) -> None:
    """Closing the client cancels unfinished jobs, whose streams then say that it was closed."""
    async with connect(broker) as client:
        stream = await client.stream("x", job_id="a").start()
    assert await next_cancel(broker) == "a"
    with pytest.raises(ClientClosed):
        await stream.result()


async def test_detached_job_runs_on(broker: MemoryBroker) -> None:
    """A detached stream sends no cancel, and neither does closing the client after it."""
    async with connect(broker) as client:
        stream = await client.stream("x", job_id="a").start()
        stream.detach()
    assert broker.jobs.qsize() == 1


async def test_left_by_another_task(broker: MemoryBroker) -> None:
    """A task that waits for tokens goes on when another one leaves the stream."""
    async with connect(broker) as client:
        streams = [await client.stream("x").start() for _ in range(2)]
        waiting = [asyncio.create_task(stream.result()) for stream in streams]
        await asyncio.sleep(0.01)
        await streams[0].aclose()
        streams[1].detach()
        for task in waiting:
            with pytest.raises(ClientClosed, match="left before its end"):
                await task


async def test_a_kept_job_runs_on(broker: MemoryBroker) -> None:
    """Leaving a stream that is kept sends no cancel, whichever way; its token can be resumed."""
    async with connect(broker) as client:
        stream = await client.stream("x", job_id="a").keep().start()
        put(broker, tokens("a", 0, "one "))
        async for _ in stream:
            break
        gc.collect()
        await asyncio.sleep(0)
        with pytest.raises(JobTimeout):
            await client.stream("x", timeout=0.01).keep().result()
        put(broker, tokens("a", 1, "two"))
        put(broker, done("a", 2))
        assert (await client.resume(stream.token).result()).text == "one two"
    assert broker.jobs.qsize() == 2


async def test_explicit_cancel(broker: MemoryBroker) -> None:
    """A stream that was cancelled ends in JobFailed once a worker has said so."""
    async with connect(broker) as client:
        stream = await client.stream("x", job_id="a").start()
        await stream.cancel()
        assert await next_cancel(broker) == "a"
        put(
            broker,
            ErrorRecord(
                job="a",
                epoch=Epoch(1, 1),
                worker="w",
                index=0,
                code=ErrorCode.CANCELLED,
                message="cancelled",
                retryable=False,
            ),
        )
        with pytest.raises(JobFailed) as caught:
            await stream.result()
    assert caught.value.code is ErrorCode.CANCELLED


async def test_timeout_cancels(broker: MemoryBroker) -> None:
    """A job without a terminal in time ends in JobTimeout, a TimeoutError, and is cancelled."""
    async with connect(broker) as client:
        with pytest.raises(JobTimeout) as caught:
            await client.complete("x", job_id="a", timeout=0.01)
        assert isinstance(caught.value, TimeoutError)
        assert await next_cancel(broker) == "a"


class SlowTransport(MemoryTransport):
    """Brokers that take nothing, and tell nothing, as long as they are `away`."""

    def __init__(self, broker: MemoryBroker) -> None:
        super().__init__(broker)
        self.back = asyncio.Event()

    async def send(self, *record: Any) -> None:
        """See `Transport`."""
        await self.back.wait()
        await super().send(*record)

    async def log_start(self, place: Place) -> int:
        """See `Transport`."""
        await self.back.wait()
        return await super().log_start(place)


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("resumed", [False, True])
async def test_timeout_while_nothing_can_be_sent(
    broker: MemoryBroker, *, resumed: bool, kept: bool
) -> None:
    """It is heard then, too; who may have sent the job ends it once that is possible."""
    transport = SlowTransport(broker)
    async with Client("", "acme", transport=transport) as client:
        if resumed:
            stream = client.resume(ResumeToken("a", 0, 0), timeout=0.01)
        else:
            stream = client.stream("x", job_id="a", timeout=0.01)
        with pytest.raises(JobTimeout, match="not finished within"):
            await (stream.keep() if kept else stream).result()
        transport.back.set()
        if not kept:
            assert await next_cancel(broker) == "a"
    assert broker.jobs.empty()


async def test_resume_after_restart(broker: MemoryBroker) -> None:
    """A second client goes on from the first one's token: no token lost, none given twice."""
    records = answer("a", ["one ", "two ", "three"])
    async with connect(broker) as client:
        stream = await client.stream("x", job_id="a").start()
        for record in records[:2]:
            put(broker, record)
        first = []
        async for event in stream:
            first.append(event)
            if len(first) == 2:
                token = str(stream.detach())
    for record in records[2:]:
        put(broker, record)
    async with connect(broker) as client:
        rest = client.resume(token)
        events = [event async for event in rest]
        completion = await client.resume(token).result()
    texts = [event.text for event in (*first, *events) if isinstance(event, TokensEvent)]
    assert texts == ["one ", "two ", "three"]
    assert completion.text == "one two three"


async def test_resume_tells_of_withdrawn_prefix(broker: MemoryBroker) -> None:
    """A prefix that was withdrawn after the token was taken is told by a Reset, then replaced."""
    put(broker, tokens("a", 0, "old "))
    put(broker, tokens("a", 1, "words"))
    token = ResumeToken("a", reply_partition("a", PARTITIONS), 0, count=2, resets=0)
    for record in answer("a", ["new"], epoch=Epoch(2, 1)):
        put(broker, record)
    async with connect(broker) as client:
        events = [event async for event in client.resume(token)]
        after = ResumeToken("a", token.partition, 0, count=0, resets=1)
        known = [event async for event in client.resume(after)]
    assert events[0] == ResetEvent(2)
    assert [type(event) for event in events[1:]] == [TokensEvent, DoneEvent]
    assert [type(event) for event in known] == [TokensEvent, DoneEvent]


@pytest.mark.parametrize("count", [1, 3])
async def test_resume_token_that_fits_nowhere(broker: MemoryBroker, count: int) -> None:
    """A token inside of a record, or past the answer's end, is refused instead of guessed at."""
    epoch = Epoch(1, 1)
    partition = reply_partition("a", PARTITIONS)
    put(broker, tokens("a", 0, "both", ids=(5, 6), epoch=epoch))
    put(broker, done("a", 2, epoch=epoch))
    async with connect(broker) as client:
        with pytest.raises(BadToken):
            await client.resume(ResumeToken("a", partition, 0, count=count)).result()


async def test_resume_below_the_log(broker: MemoryBroker) -> None:
    """Replies that retention has deleted give StreamLost, before and while they are read."""
    partition = reply_partition("a", PARTITIONS)
    for record in answer("a", ["one", "two"]):
        put(broker, record)
    broker.expire(partition, 1)
    async with connect(broker) as client:
        with pytest.raises(StreamLost):
            await client.resume(ResumeToken("a", partition, 0)).result()


async def test_retention_overtakes_a_slow_caller(broker: MemoryBroker) -> None:
    """A stalled stream whose next record was deleted meanwhile ends in StreamLost."""
    partition = reply_partition("a", PARTITIONS)
    async with connect(broker, inbox_events=2) as client:
        stream = await client.stream("x", job_id="a").start()
        for index in range(10):
            put(broker, tokens("a", index, "x"))
        events = aiter(stream)
        await anext(events)
        broker.expire(partition, 8)
        with pytest.raises(StreamLost):
            async for _ in events:
                pass


@pytest.mark.parametrize(
    "text", ["", "1.2.3.a", "1.2.3.4.", "1.2.3.4.a/b", "-1.0.0.0.a", "\uff11.0.0.0.a"]
)
def test_unreadable_token(text: str) -> None:
    """Text that is no token is refused with the form it should have."""
    with pytest.raises(BadToken, match="a token is"):
        ResumeToken.parse(text)


def test_token_round_trip() -> None:
    """A token survives being text, whatever its job's id is made of."""
    token = ResumeToken("a.b-c_9", 3, 17, 4, 1)
    assert ResumeToken.parse(str(token)) == token


async def test_unreadable_reply(broker: MemoryBroker) -> None:
    """A reply that breaks the contract ends its own stream with a typed error."""
    async with connect(broker) as client:
        stream = await client.stream("x", job_id="a").start()
        broker.append(stream.token.partition, b"a", b"\xc1")
        with pytest.raises(ReplyUnreadable):
            await stream.result()


async def test_broker_failure_reaches_every_stream(broker: MemoryBroker) -> None:
    """When the brokers fail each stream ends in BrokerUnavailable; the client works again after."""
    async with connect(broker) as client:
        streams = [await client.stream("x").start() for _ in range(3)]
        broker.failing = True
        for stream in streams:
            with pytest.raises(BrokerUnavailable):
                await stream.result()
        broker.failing = False
        again = await client.stream("x", job_id="b").start()
        for record in answer("b", ["fine"]):
            put(broker, record)
        assert (await again.result()).text == "fine"


async def test_two_readers_of_a_job(broker: MemoryBroker) -> None:
    """Each is given all of it at its own pace; one that leaves takes nothing from the other."""
    async with connect(broker, inbox_events=2) as client:
        first = await client.stream("x", job_id="a").start()
        token = first.token
        second, third = client.resume(token), client.resume(token)
        await second.start()
        await third.start()
        words = [f"{number} " for number in range(9)]
        for record in answer("a", words)[:4]:
            put(broker, record)
        early = aiter(third)
        assert isinstance(await anext(early), TokensEvent)
        third.detach()
        for record in answer("a", words)[4:]:
            put(broker, record)
        assert (await first.result()).text == (await second.result()).text == "".join(words)
        assert not client.link.router.following


async def test_polled_streams(broker: MemoryBroker) -> None:
    """Many streams in one task: what has arrived is taken at once, an error is raised as it is."""
    woken = asyncio.Event()
    async with connect(broker) as client:
        streams = [client.stream("x", job_id=job) for job in ("a", "b")]
        for stream in streams:
            await stream.start(woken.set)
        assert [stream.poll() for stream in streams] == [None, None]
        put(broker, tokens("a", 0, "one"))
        await asyncio.wait_for(woken.wait(), 5)
        event = streams[0].poll()
        assert isinstance(event, TokensEvent)
        assert (event.text, streams[0].token.count, streams[0].poll()) == ("one", 1, None)
        woken.clear()
        put(broker, done("a", 1))
        code = ErrorCode.INTERNAL
        put(
            broker,
            ErrorRecord(
                job="b",
                epoch=Epoch(1, 1),
                worker="fake",
                index=0,
                code=code,
                message="no",
                retryable=True,
            ),
        )
        await asyncio.wait_for(woken.wait(), 5)
        while not streams[0].finished:
            await asyncio.sleep(0)
            streams[0].poll()
        assert streams[0].poll() is None
        async with asyncio.timeout(5):
            while not streams[1]._started().waiting:  # noqa: ASYNC110 - another woke us
                await asyncio.sleep(0)
        with pytest.raises(JobFailed, match="no"):
            streams[1].poll()
        for stream in streams:
            stream.leave(cancel=True)


async def test_bad_job_is_refused_here(broker: MemoryBroker) -> None:
    """What breaks a limit of the contract is a ValueError that does not show the prompt."""
    async with connect(broker) as client:
        with pytest.raises(ValueError, match="max_tokens") as caught:
            client.stream("a secret", sampling={"max_tokens": 0})
        with pytest.raises(ValueError, match="exactly one"):
            client.stream("a secret", token_ids=[1])
    assert "secret" not in str(caught.value)


async def test_unopened_client(broker: MemoryBroker) -> None:
    """A client that was not entered says so."""
    with pytest.raises(ClientClosed, match="async with"):
        await connect(broker).complete("x")


@pytest.mark.parametrize(
    ("name", "told"),
    [("samplin", "'samplin' is no option"), ("max_tokens", "it is a field of sampling")],
)
def test_an_option_that_there_is_not_is_an_error(
    broker: MemoryBroker, name: str, told: str
) -> None:
    """A misspelt option would else be a job with other settings than its caller thinks."""
    options: dict[str, Any] = {name: 5}
    with pytest.raises(TypeError, match=told):
        connect(broker).stream("hi", **options)
