"""A run: answers in both forms, errors as lines, retries, overload, brokers that go, stopping."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

from aril.batches import asking
from aril.batches.lines import BadLine, Line, question_of, read_lines
from aril.batches.output import Output
from aril.batches.tally import Tally
from aril.batches.window import Window
from aril.errors import BrokerUnavailable, JobTimeout
from aril.schemas import ErrorCode
from tests.support.batch_site import BatchSite, chat_line
from tests.support.remembering_worker import MortalTransport, RememberingWorker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from aril.batches.lines import Manner, Question
    from aril.batches.run import Run


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BatchSite:
    """Make a batch whose waits are short."""
    monkeypatch.setattr(asking, "FIRST_WAIT", 0.001)
    return BatchSite(tmp_path)


@pytest.fixture
async def worker(site: BatchSite) -> AsyncIterator[RememberingWorker]:
    """Serve it."""
    async with RememberingWorker(site.broker) as worker:
        yield worker


@pytest.mark.usefixtures("worker")
async def test_answers_in_either_form(site: BatchSite) -> None:
    """OpenAI's lines get OpenAI's answers, ours the last event of `aril send --json`."""
    site.write(chat_line("k1", "p1"), {"id": "mine", "prompt": "p2"})
    tally = await site.run()
    openai, ours = sorted(site.records(), key=lambda each: "line" in each)
    assert list(openai) == ["id", "custom_id", "response", "error"]
    assert (openai["custom_id"], openai["error"]) == ("k1", None)
    response = openai["response"]
    assert response["status_code"] == 200
    body = response["body"]
    assert (body["object"], body["id"]) == ("chat.completion", f"chatcmpl-{response['request_id']}")
    assert body["choices"][0]["message"]["content"] == "p1 0;p1 1;p1 2;"
    assert (ours["id"], ours["event"], ours["text"]) == ("mine", "done", "p2 0;p2 1;p2 2;")
    assert (ours["ids"], ours["usage"]["completion_tokens"]) == ([0, 1, 2], 3)
    assert (tally.answered, tally.tokens, tally.jobs, tally.left) == (2, 6, 2, 0)


async def test_a_text_with_several_answers(site: BatchSite, worker: RememberingWorker) -> None:
    """One line, as many jobs as choices."""
    line = chat_line("k", "") | {"url": "/v1/completions"}
    line["body"] = {"model": "terse", "prompt": ["a", "b"], "n": 2, "seed": 4}
    site.write(line)
    await site.run()
    (record,) = site.records()
    texts = [choice["text"][:3] for choice in record["response"]["body"]["choices"]]
    assert texts == ["a 0", "a 0", "b 0", "b 0"]
    assert {prompt: len(ids) for prompt, ids in worker.ids.items()} == {"a": 2, "b": 2}
    assert {job.adapter for job in worker.first.values()} == {"terse"}


async def test_a_finished_batch_asks_nothing(site: BatchSite, worker: RememberingWorker) -> None:
    """Nor does one to which a line was added, but for that line."""
    site.write(chat_line("k1", "p1"))
    await site.run()
    tally = await site.run()
    assert (tally.held, tally.jobs) == (1, 0)
    site.write(chat_line("k0", "p0"), chat_line("k1", "p1"))
    tally = await site.run()
    assert (tally.held, tally.jobs) == (1, 1)
    assert len(worker.first) == 2


async def test_a_changed_line_is_asked(site: BatchSite, worker: RememberingWorker) -> None:
    """Under another id; its old answer stays, and stands before the new one."""
    site.write(chat_line("k1", "p1"))
    await site.run()
    site.write(chat_line("k1", "p2"))
    await site.run()
    assert [each["custom_id"] for each in site.records()] == ["k1", "k1"]
    assert len({*worker.first}) == 2
    assert not worker.put_aside


async def test_what_cannot_be_asked_is_an_error_line(
    site: BatchSite, worker: RememberingWorker
) -> None:
    """With our code, the limit and what was given; nothing is sent."""
    site.write(chat_line("k", "p", top_p=2), {"prompt": "p", "sampling": {"top_p": 2}})
    tally = await site.run()
    openai, ours = sorted(site.records(), key=lambda each: "line" in each)
    told = {"code": "limit_exceeded", "limit": 1, "given": 2, "retryable": False}
    assert openai["response"]["status_code"] == 400
    assert openai["response"]["body"] == {"error": openai["error"]}
    assert told.items() <= openai["error"].items()
    assert told.items() <= ours.items()
    assert (ours["event"], ours["number"]) == ("error", 2)
    assert tally.failed == {"limit_exceeded": 2}
    assert not worker.first


async def test_errors_that_may_pass_are_tried_again(
    site: BatchSite, worker: RememberingWorker
) -> None:
    """A few times, each under an id that follows from the first."""
    site.write(chat_line("k1", "p1"), chat_line("k2", "p2"))
    worker.fails = {"p1": [ErrorCode.INTERNAL] * 3, "p2": [ErrorCode.INTERNAL] * 9}
    tally = await site.run()
    good, bad = sorted(site.records(), key=lambda each: str(each["custom_id"]))
    assert good["error"] is None
    assert (bad["error"]["code"], bad["error"]["retryable"]) == ("internal", True)
    for ids in worker.ids.values():
        assert ids == [ids[0], *(f"{ids[0]}.r{attempt}" for attempt in (1, 2, 3))]
    assert (tally.retries, tally.failed) == (6, {"internal": 1})


async def test_other_errors_are_not(site: BatchSite, worker: RememberingWorker) -> None:
    """They would be the same again."""
    site.write(chat_line("k1", "p1"), chat_line("k2", "p2", n=2))
    worker.fails = {
        "p1": [ErrorCode.UNKNOWN_ADAPTER],
        "p2": [ErrorCode.CRASH_LOOP],
    }
    tally = await site.run()
    errors = {each["custom_id"]: each["response"]["status_code"] for each in site.records()}
    assert errors == {"k1": 404, "k2": 500}
    assert (tally.retries, tally.jobs) == (0, 3)
    assert worker.cancels == []


async def test_overload_is_waited_out(site: BatchSite, worker: RememberingWorker) -> None:
    """As often as it takes, at the time that is told, and with fewer jobs at once."""
    site.write(*(chat_line(f"k{at}", f"p{at}") for at in range(8)))
    error = worker.error("", ErrorCode.OVERLOADED, retry_after_ms=30)
    worker.fails = {f"p{at}": [error] * 6 for at in range(8)}
    runs: list[Run] = []
    tally = await site.run(concurrency=8, with_run=runs.append)
    assert (tally.answered, tally.retries) == (8, 48)
    assert runs[0].window.size < 8


async def test_failed_lines_are_asked_again_on_request(
    site: BatchSite, worker: RememberingWorker
) -> None:
    """Under new ids, as what has ended stays ended; answers are left alone."""
    site.write(chat_line("k1", "p1"), chat_line("k2", "p2"))
    worker.fails = {"p1": [ErrorCode.UNKNOWN_ADAPTER]}
    await site.run()
    tally = await site.run()
    assert (tally.held, tally.jobs) == (2, 0)
    tally = await site.run(retry_failed=True)
    assert (tally.held, tally.answered) == (1, 1)
    assert [each["error"] for each in site.records()] == [None, None]
    assert len(set(worker.ids["p1"])) == 2


async def test_brokers_that_go_and_come(site: BatchSite, worker: RememberingWorker) -> None:
    """What was asked is asked again under the same id, as nobody knows whether it arrived."""
    site.write(*(chat_line(f"k{at}", f"p{at}") for at in range(4)))
    worker.gate.clear()
    task = asyncio.create_task(site.run())
    await worker.until(lambda: len(worker.first) == 4)
    site.broker.failing = True
    await asyncio.sleep(0.2)
    site.broker.failing = False
    worker.gate.set()
    tally = await task
    assert (tally.answered, tally.retries) == (4, 0)
    assert worker.sent_again > 0
    assert all(len(ids) == 1 for ids in worker.ids.values())


async def test_brokers_that_stay_away(
    site: BatchSite, worker: RememberingWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """End the run, and the next one finds what was asked."""
    monkeypatch.setattr(asking, "OUTAGE_SECONDS", 0.05)
    site.write(chat_line("k1", "p1"))
    worker.gate.clear()
    task = asyncio.create_task(site.run())
    await worker.until(lambda: bool(worker.first))
    site.broker.failing = True
    with pytest.raises(BrokerUnavailable):
        await task
    site.broker.failing = False
    worker.gate.set()
    await site.run()
    assert len(worker.ids["p1"]) == 1


async def test_a_job_that_takes_too_long(site: BatchSite, worker: RememberingWorker) -> None:
    """Is cancelled and asked again under the next id, then told."""
    site.write(chat_line("k1", "p1"))
    worker.gate.clear()
    tally = await site.run(timeout=0.02)
    (record,) = site.records()
    assert (record["error"]["code"], record["response"]["status_code"]) == ("timeout", 504)
    assert tally.failed == {"JobTimeout": 1}
    assert worker.cancels == worker.ids["p1"]
    assert len(worker.ids["p1"]) == asking.TRIES


async def test_a_job_that_cannot_be_sent_in_time(
    site: BatchSite, worker: RememberingWorker
) -> None:
    """Is as one whose brokers are away: it is sent again under its id, however often."""

    class Slow(MortalTransport):
        slow = 2 * asking.TRIES

        async def send(self, *record: Any) -> None:
            if self.slow:
                self.slow -= 1
                raise JobTimeout("as told by Stream.start", 1)
            await super().send(*record)

    site.write(chat_line("k1", "p1"))
    tally = await site.run(Slow(site.broker))
    assert (tally.answered, tally.failed) == (1, {})
    assert len(worker.ids["p1"]) == 1


async def begun(
    site: BatchSite, worker: RememberingWorker, count: int, **options: Any
) -> tuple[asyncio.Task[Tally], Run]:
    """Begin a run of ten lines that nobody answers; return it once so many were asked."""
    site.write(*(chat_line(f"k{at}", f"p{at}") for at in range(10)))
    worker.gate.clear()
    runs: list[Run] = []
    task = asyncio.create_task(site.run(concurrency=count, with_run=runs.append, **options))
    await worker.until(lambda: len(worker.first) == count)
    return task, runs[0]


async def test_at_most_so_many_at_once(site: BatchSite, worker: RememberingWorker) -> None:
    """Three jobs are in flight, and no line is read ahead of them."""
    task, run = await begun(site, worker, 3)
    await asyncio.sleep(0.05)
    assert len(worker.first) == 3
    assert run.window.used == 3
    worker.gate.set()
    assert (await task).answered == 10


@pytest.mark.usefixtures("worker")
async def test_lines_leave_room_for_others(
    site: BatchSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gateway streams on the same loop: a turn between any two; long ones, judged elsewhere."""
    turns, judged = 0, []

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    def judge(line: Line, manner: Manner) -> Question:
        judged.append((threading.current_thread() is threading.main_thread(), turns))
        return question_of(line, manner)

    monkeypatch.setattr("aril.batches.run.question_of", judge)
    site.write(*(chat_line(f"k{at}", f"p{at}") for at in range(5)), chat_line("long", "x " * 600))
    counting = asyncio.create_task(count())
    await site.run()
    counting.cancel()
    assert [here for here, _ in judged] == [True] * 5 + [False]
    assert len({turn for here, turn in judged if here}) == 5


async def test_stopped_it_asks_nothing_more(site: BatchSite, worker: RememberingWorker) -> None:
    """It takes what comes for a while; what does not is left, and found by the next run."""
    task, run = await begun(site, worker, 3, leave_seconds=0.05)
    run.stop()
    tally = await task
    assert (tally.done, tally.left, tally.total) == (0, 3, 10)
    assert worker.cancels == []
    worker.gate.set()
    tally = await site.run()
    assert tally.answered == 10
    assert (len(worker.first), worker.sent_again) == (10, 3)


async def test_stopped_it_takes_what_still_comes(
    site: BatchSite, worker: RememberingWorker
) -> None:
    """Within the time that it has."""
    task, run = await begun(site, worker, 3, leave_seconds=30.0)
    run.stop()
    await asyncio.sleep(0)
    worker.gate.set()
    tally = await task
    assert (tally.done, tally.left) == (3, 0)
    assert len(worker.first) == 3


async def test_cancelled_it_ends_what_runs(site: BatchSite, worker: RememberingWorker) -> None:
    """The next run asks that anew, under other ids: under the old ones it has ended."""
    task, run = await begun(site, worker, 3, leave_seconds=30.0)
    run.stop()
    run.cancel()
    tally = await task
    assert (tally.done, tally.left) == (0, 3)
    await worker.until(lambda: len(worker.cancels) == 3)
    assert sorted(worker.cancels) == sorted(worker.first)
    worker.gate.set()
    tally = await site.run()
    assert (tally.answered, tally.failed) == (10, {})
    assert len(worker.first) == 13


async def test_a_full_disk_ends_the_run(
    site: BatchSite, worker: RememberingWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What runs is left, and found when there is room again."""

    def full(_output: Output, _record: bytes) -> None:
        raise OSError(28, "No space left on device")

    site.write(*(chat_line(f"k{at}", f"p{at}") for at in range(4)))
    with monkeypatch.context() as patched:
        patched.setattr(Output, "append", full)
        with pytest.raises(OSError, match="No space"):
            await site.run()
    assert worker.cancels == []
    await site.run()
    assert all(len(set(ids)) == 1 for ids in worker.ids.values())


async def test_a_file_that_changes_while_it_is_read(
    site: BatchSite, worker: RememberingWorker
) -> None:
    """Ends the run with the line, and loses nothing that was asked."""
    site.write(chat_line("k1", "p1"))

    def spoil(_run: Run) -> None:
        with site.input.open("a") as file:
            file.write("{\n")

    with pytest.raises(BadLine, match="line 2: not JSON"):
        await site.run(with_run=spoil)
    assert worker.cancels == []
    site.write(chat_line("k1", "p1"))
    await site.run()
    assert len(set(worker.ids["p1"])) == 1


async def test_lines_that_cannot_be_read_on(
    site: BatchSite, worker: RememberingWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the fault, the run does not look as if it were complete."""

    def broken(*given: Any) -> Iterator[Line | BadLine]:
        yield from read_lines(*given)
        raise RuntimeError("a fault of ours")

    site.write(chat_line("k1", "p1"))
    monkeypatch.setattr("tests.support.batch_site.read_lines", broken)
    with pytest.raises(RuntimeError, match="of ours"):
        await site.run()
    assert worker.cancels == []


async def test_memory_does_not_grow_with_the_file(
    site: BatchSite, worker: RememberingWorker
) -> None:
    """Of a thousand lines there are never more than the window's in work."""
    most = 0
    task = None

    async def look(run: Run) -> None:
        nonlocal most
        while True:
            most = max(most, len(run._tasks))
            await asyncio.sleep(0)

    def begin(run: Run) -> None:
        nonlocal task
        task = asyncio.create_task(look(run))

    site.write(*(chat_line(f"k{at}", f"p{at}") for at in range(1_000)))
    tally = await site.run(concurrency=16, with_run=begin)
    assert task is not None
    task.cancel()
    assert tally.answered == len(worker.first) == 1_000
    assert 0 < most <= 16


async def test_a_window_shrinks_once_and_grows_again() -> None:
    """A flood of refusals is one reason; answers bring the places back, never more."""
    window = Window(8)
    for _ in range(5):
        window.overloaded(0.0)
    assert window.size == 6
    for _ in range(100):
        window.answered()
    assert window.size == 8


async def test_a_window_waits_as_long_as_it_is_told() -> None:
    """Nobody gets a place before that."""
    window, loop = Window(8), asyncio.get_running_loop()
    began = loop.time()
    window.overloaded(0.05)
    await window.enter()
    assert loop.time() - began >= 0.05


async def test_a_transport_of_the_dead_sends_nothing(site: BatchSite) -> None:
    """The tests' own killer works: what a dead process sends does not arrive."""
    transport: Any = MortalTransport(site.broker)
    transport.dead = True
    await transport.send(None, b"key", b"value")
    assert site.broker.jobs.empty()


def test_what_is_told_in_the_end() -> None:
    """Only what there is to tell."""
    assert Tally(total=3, answered=3).told() == "3 lines: 3 answered"
    tally = Tally(total=9_000, held=1_000, answered=2)
    tally.failed.update({"overloaded": 2, "internal": 1})
    assert tally.told() == (
        "9,000 lines: 2 answered, 3 failed (overloaded 2, internal 1), 1,000 were there, "
        "7,995 not yet"
    )
