"""The client without asyncio, in memory: answers, leaving, threads, interrupts."""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

import aril
from aril import (
    BadSetting,
    BlockingClient,
    BrokerUnavailable,
    ClientClosed,
    DoneEvent,
    JobFailed,
    JobTimeout,
    StreamLost,
    TextWithdrawn,
    TokensEvent,
    TopicMissing,
)
from aril.blocking import Client, handover
from aril.schemas import Epoch, Job, ReplyRecord
from tests.support.fake_worker import FakeWorker, answer, tokens
from tests.support.served_memory import ServedTransport, TailWorker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from aril import Event

MANY = "word " * 2_000


class Never(FakeWorker):
    """Brings one word of an answer, and no more."""

    @staticmethod
    def _answer(job: Job) -> list[ReplyRecord]:
        return [tokens(job.id, 0, "one")]


class Interrupting(FakeWorker):
    """Presses Ctrl-C where the answer would be."""

    @staticmethod
    def _answer(job: Job) -> list[ReplyRecord]:
        os.kill(os.getpid(), signal.SIGINT)
        return [tokens(job.id, 0, "one")] if job.prompt == "one word" else []


class Withdrawing(FakeWorker):
    """Begins one answer, and brings another in its place."""

    @staticmethod
    def _answer(job: Job) -> list[ReplyRecord]:
        return [tokens(job.id, 0, "old "), *answer(job.id, ["new ", "words"], epoch=Epoch(2, 1))]


def connect(kind: type[FakeWorker] = TailWorker, **options: Any) -> tuple[Client, ServedTransport]:
    """Return a client with a broker and a worker of its own."""
    transport = ServedTransport(kind)
    return Client("", "acme", transport=transport, **options), transport


def eventually(holds: Callable[[], bool]) -> None:
    """Wait until something holds; the test's time-out is the limit."""
    while not holds():
        time.sleep(0.005)


def texts_of(events: Iterable[Event]) -> list[str]:
    """Return the text of each event."""
    return [event.text for event in events if isinstance(event, TokensEvent | DoneEvent)]


def threads() -> list[str]:
    """Return the names of the clients' threads that run."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("aril-")]


def test_events_text_and_completion() -> None:
    """All three ways to an answer bring the whole of it."""
    assert BlockingClient is Client
    client, _ = connect()
    with client:
        *parts, last = client.stream("one two three", adapter="poet")
        pieces = [*client.text("one two three")]
        completion = client.complete("one two three", adapter="poet")
    assert all(isinstance(event, TokensEvent) for event in parts)
    assert isinstance(last, DoneEvent)
    assert texts_of([*parts, last]) == ["one", " two", "", " three"]
    assert pieces == ["one", " two", " three"]
    assert (completion.text, completion.adapter) == ("one two three", "poet")


def test_result_of_a_stream_that_was_begun() -> None:
    """The whole answer is there after some of it was iterated, and asking twice is harmless."""
    client, _ = connect()
    with client, client.stream("one two three") as stream:
        events = iter(stream)
        next(events)
        assert not stream.finished
        assert stream.result().text == "one two three"
        assert stream.finished
        assert stream.result().text == "one two three"


@pytest.mark.parametrize("way", ["break", "with", "text", "close"])
def test_leaving_cancels(way: str) -> None:
    """A caller that leaves in mid-answer cancels the job, and need not wait for that."""
    client, transport = connect(Never)
    with client:
        if way == "break":
            for _ in client.stream("x", job_id="a"):
                break
        elif way == "with":
            with client.stream("x", job_id="a"):
                pass
        elif way == "text":
            next(client.text("x", job_id="a"))
        else:
            stream = client.stream("x", job_id="a").start()
            stream.close()
            with pytest.raises(ClientClosed, match="left before its end"):
                stream.result()
        eventually(lambda: "a" in transport.worker.cancelled)


def test_what_is_finished_is_not_cancelled() -> None:
    """Leaving behind the end sends nothing."""
    client, transport = connect()
    with client:
        for event in client.stream("one two"):
            if isinstance(event, DoneEvent):
                break
        client.stream("one two").result()
    assert not transport.cancelled()


def test_closing_cancels_and_is_final() -> None:
    """What was open ends in ClientClosed, so does what is asked later; no thread is left."""
    client, transport = connect(Never)
    with client:
        stream = client.stream("x", job_id="a").start()
        assert threads() == ["aril-acme"]
    assert transport.cancelled() == {"a"}
    for ask in (stream.result, lambda: client.complete("x"), client.open, lambda: client.text("x")):
        with pytest.raises(ClientClosed):
            ask()
    client.close()
    assert threads() == []


def test_closed_by_another_thread() -> None:
    """Who waits for a token while the client is closed is told, after what had arrived."""
    client, _ = connect(Never)
    events = iter(client.stream("x"))
    assert texts_of([next(events)]) == ["one"]
    closer = threading.Timer(0.05, client.close)
    closer.start()
    with pytest.raises(ClientClosed, match="was closed"):
        next(events)
    closer.join()


@pytest.mark.parametrize("way", ["stream", "text"])
def test_closed_while_a_caller_is_behind(way: str) -> None:
    """Who has not taken all that came is told, too: what was given is not the whole answer."""
    client, transport = connect(inbox_events=4)
    coming = iter(getattr(client, way)(MANY))
    given = [next(coming)]
    eventually(lambda: transport.worker.served == 1)
    client.close()
    with pytest.raises(ClientClosed, match="was closed"):
        given.extend(coming)
    assert 0 < len(given) < MANY.count(" ")


def test_left_by_another_thread() -> None:
    """Who leaves a stream ends its iteration without an error, wherever that waits."""
    client, transport = connect(inbox_events=4)
    with client:
        stream = client.stream(MANY)
        coming = iter(stream)
        next(coming)
        eventually(lambda: transport.worker.served == 1)
        stream.close()
        assert [*coming] == []


def test_closed_while_a_record_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for a broker is told at once, too, that it need not wait any more."""
    monkeypatch.setattr("aril.blocking.call.WAIT_SECONDS", 1_000)
    client, transport = connect()
    sent = threading.Event()

    async def send(*_: object) -> None:
        sent.set()
        await asyncio.sleep(1_000)

    monkeypatch.setattr(transport, "send", send)
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(client.cancel, "a")
        sent.wait()
        client.close()
        with pytest.raises(ClientClosed, match="was closed"):
            asked.result()


def test_a_dropped_client_ends_its_thread() -> None:
    """One that nobody holds any more is closed, but not while a stream of it is held."""
    client, transport = connect()
    stream = client.open().stream("one two", job_id="a")
    del client
    gc.collect()
    assert stream.result().text == "one two"
    del stream
    gc.collect()
    eventually(lambda: threads() == [])
    assert transport.followed == {}


def test_opened_when_it_is_first_used() -> None:
    """Making one connects nowhere; the first call does, from whichever thread."""
    client, transport = connect()
    assert threads() == []
    with ThreadPoolExecutor(8) as pool:
        answers = [*pool.map(client.complete, ["one two"] * 8)]
    assert {completion.text for completion in answers} == {"one two"}
    assert threads() == ["aril-acme"]
    assert transport.worker.served == 8
    client.close()


def test_many_threads_share_a_client() -> None:
    """Each of forty threads gets its own answer, whole and in order, by whichever way."""
    client, _ = connect(inbox_events=3)
    prompts = [f"answer number {number} of {'very ' * number}many" for number in range(40)]
    with client, ThreadPoolExecutor(len(prompts)) as pool:
        assert [*pool.map(lambda prompt: client.complete(prompt).text, prompts)] == prompts
        assert [*pool.map(lambda prompt: "".join(client.text(prompt)), prompts)] == prompts


def test_the_loop_is_not_called_for_each_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two thousand events hardly any costs a call into the loop."""
    client, _ = connect()
    calls = []
    with client:
        loop = client._opened()._loop
        call = loop.call_soon_threadsafe

        def counted(*arguments: Any, **options: Any) -> asyncio.Handle:
            calls.append(arguments)
            return call(*arguments, **options)

        monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
        assert len([*client.stream(MANY)]) == MANY.count(" ") + 2
    assert len(calls) < 40


def test_the_loop_is_ahead_by_a_bound_only() -> None:
    """A slow caller's events wait in the log; none is lost, and none is out of turn."""
    client, transport = connect(inbox_events=4)
    with client:
        stream = client.stream(MANY)
        coming = iter(stream)
        first = next(coming)
        eventually(lambda: transport.worker.served == 1)
        assert stream._handover._waiting.qsize() <= 4
        rest = [*coming]
    events = [event for event in (first, *rest) if isinstance(event, TokensEvent | DoneEvent)]
    assert [event.index for event in events] == [*range(MANY.count(" ") + 2)]


def test_the_loop_is_ahead_by_some_bytes_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """However few the events: large ones wait in the log, too."""
    monkeypatch.setattr(handover, "INBOX_BYTES", 3_000)
    client, _ = connect()
    words = " ".join("x" * 1_000 for _ in range(40))
    with client:
        stream = client.stream(words)
        coming = iter(stream)
        given = [next(coming)]
        eventually(lambda: stream._handover._full)
        assert stream._handover._waiting.qsize() <= 3
        given += coming
    assert "".join(texts_of(given)) == words


def test_a_token_says_where_the_caller_is() -> None:
    """It does not say where the loop is, which has read ahead: the rest is given by resuming."""
    client, transport = connect()
    with client:
        stream = client.stream("one two three four").start()
        assert stream.token.count == 0
        events = iter(stream)
        next(events)
        eventually(lambda: transport.worker.served == 1)
        next(events)
        token = stream.detach()
        assert token.count == 2
        assert [*events] == []
        assert not transport.cancelled()
        assert "".join(texts_of(client.resume(str(token)))) == " three four"
        assert client.resume(token).result().text == "one two three four"


def test_a_detached_job_runs_on() -> None:
    """No cancel is sent for it, neither at once nor by closing the client."""
    client, transport = connect(Never)
    with client:
        stream = client.stream("x")
        with pytest.raises(ClientClosed, match="has not been started"):
            stream.detach()
        stream.start().detach()
    assert not transport.cancelled()


def test_a_kept_job_runs_on() -> None:
    """No cancel is sent for it when its caller leaves."""
    client, transport = connect(Never)
    with client:
        for _ in client.stream("x").keep():
            break
    assert not transport.cancelled()


def test_cancelling() -> None:
    """Both ways send a cancel record."""
    client, transport = connect(Never)
    with client:
        client.stream("x", job_id="a").start().cancel()
        client.cancel("b")
        eventually(lambda: transport.worker.cancelled == {"a", "b"})


def test_all_that_the_other_client_has() -> None:
    """Under the same name, with the same arguments; what streams ask of it is not for callers."""
    of_streams = {"leave", "taken"}
    names = {name for name in vars(aril.Client) if not name.startswith("_")} - of_streams
    assert names <= vars(Client).keys()
    for name in names:
        theirs, ours = (inspect.signature(getattr(kind, name)) for kind in (aril.Client, Client))
        assert [*theirs.parameters.values()] == [*ours.parameters.values()]


def test_an_answer_that_is_found() -> None:
    """By the id alone: the token is resumed to the whole of it."""
    client, _ = connect()
    with client:
        client.complete("one two", job_id="a")
        token = client.find("a", since=0)
        assert client.resume(token).result().text == "one two"
        with pytest.raises(StreamLost):
            client.find("b")


def test_errors_are_those_of_the_other_client() -> None:
    """What a worker says, a time-out, and what is refused here come as the same classes."""
    client, transport = connect()
    with client:
        for ask in (client.complete, lambda prompt: [*client.stream(prompt)]):
            with pytest.raises(JobFailed, match="told to fail"):
                ask("fail, please")
        stream = client.stream("fail, please")
        with pytest.raises(JobFailed):
            list(stream)
        assert stream.finished
        transport.worker.pause = 1
        with pytest.raises(JobTimeout):
            client.complete("x", timeout=0.01)
        with pytest.raises(JobTimeout):
            [*client.text("x", timeout=0.01)]
        with pytest.raises(ValueError, match="max_tokens"):
            client.stream("x", sampling={"max_tokens": 0})
        options: Any = {"max_tokens": 1}
        with pytest.raises(TypeError, match="a field of sampling"):
            client.text("x", **options)
    with pytest.raises(BadSetting, match="ARIL_TENANT"):
        aril.BlockingClient.from_env()


def test_text_that_was_withdrawn() -> None:
    """It is an error whose token gives the new answer, or the callback's affair."""
    client, _ = connect(Withdrawing)
    parts: list[str] = []
    with client:
        with pytest.raises(TextWithdrawn) as caught:
            [*client.text("x")]
        again = client.resume(caught.value.token).result()
        for piece in client.text("x", on_reset=parts.clear):
            parts += [piece]
    assert again.text == "new words"
    assert parts == ["new ", "words"]


def test_opening_fails_and_is_tried_again() -> None:
    """A broker that is away is an error at once; the same client works when it is back."""
    client, transport = connect()
    transport.broker.failing = True
    with pytest.raises(BrokerUnavailable, match="down"):
        client.open()
    eventually(lambda: threads() == [])
    transport.broker.failing = False
    with client:
        assert client.complete("one").text == "one"


def test_a_topic_is_missing_and_then_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same where a connection was made before something failed."""
    client, transport = connect()

    async def partitions(topic: str) -> int:
        raise TopicMissing(topic)

    with monkeypatch.context() as patch:
        patch.setattr(transport, "partitions", partitions)
        with pytest.raises(TopicMissing):
            client.complete("one")
    eventually(lambda: threads() == [])
    with client:
        assert client.complete("one").text == "one"


@pytest.mark.parametrize("way", ["complete", "result", "iterate"])
def test_ctrl_c_cancels_the_job(way: str) -> None:
    """KeyboardInterrupt where an answer is waited for ends the job too, and the client is well."""
    client, transport = connect(Interrupting)
    ways: dict[str, Callable[[], object]] = {
        "complete": lambda: client.complete("x", job_id="a"),
        "result": lambda: client.stream("x", job_id="a").result(),
        "iterate": lambda: list(client.stream("one word", job_id="a")),
    }
    with client:
        with pytest.raises(KeyboardInterrupt):
            ways[way]()
        eventually(lambda: "a" in transport.worker.cancelled)
        client.cancel("b")
        eventually(lambda: "b" in transport.worker.cancelled)


async def test_in_a_thread_that_has_a_loop() -> None:
    """In a notebook a loop runs already in the thread that asks."""
    assert asyncio.get_running_loop().is_running()
    client, _ = connect()
    with client:
        assert client.complete("one two").text == "one two"
        assert "".join(client.text("one two")) == "one two"


def test_not_from_its_own_thread() -> None:
    """A call that would wait for itself raises instead."""
    client, _ = connect()

    async def ask() -> None:
        client.complete("x")

    with client, pytest.raises(RuntimeError, match="wait for itself"):
        client._opened().run(ask)
