"""A job that fails is freed at once: it leaves no cycle for the garbage collector.

That looks seldom (`aril.garbage`), and each of these may hold a record of a megabyte.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka.errors import KafkaConnectionError, MessageSizeTooLargeError
from structlog.testing import capture_logs

from aril.fetching.follower import PlaceError
from aril.schemas import ErrorCode, Job, JobError, Sampling
from aril.worker.engine.request import Output
from aril.worker.job import Partition
from aril.worker.replies.producer import AppendError, LogWriter, TooLargeError
from aril.worker.settings import load_settings
from aril.worker.takeover import readback
from aril.worker.takeover.readback import KafkaLogReader, ReadError
from tests.support.cycles import left_to_the_collector, ours
from tests.support.harness import Harness
from tests.support.older_jobs import job

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aril.worker.job import Prompt

COUNT = 5
Sent = Callable[[int], "bytes | Job | None"]


class Refuses:
    """Whatever is asked of it: adapters, prompts, templates, constraints."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def _raise(self) -> None:
        raise self._error.__class__(*self._error.args)

    async def get(self, tenant: str, name: str) -> Any:  # noqa: ARG002 - an adapter's source
        """Refuse an adapter."""
        raise JobError(ErrorCode.UNKNOWN_ADAPTER, "adapter: there is none of that name")

    def encode(self, job: Job, rendered: str | None = None, **_: object) -> Prompt:  # noqa: ARG002
        """Refuse a prompt."""
        self._raise()
        raise AssertionError

    def compile(self, constraint: object) -> Any:  # noqa: ARG002 - a compiler
        """Refuse a constraint."""
        raise JobError(ErrorCode.INVALID_JOB, "regex: no")

    def close(self) -> None:
        """Nothing is held."""


@pytest.fixture(autouse=True)
def unrendered() -> Iterator[None]:
    """Show no traceback: who looks at the locals of a thread's frame has it keep them."""
    with capture_logs():
        yield


SHORT = Sampling(max_tokens=4)
BAD: dict[str, tuple[dict[str, Any], Sent]] = {
    "not msgpack": ({}, lambda _: b"\x81"),
    "not a map": ({}, lambda _: b"\x01"),
    "nothing": ({}, lambda _: None),
    "another version": ({}, lambda n: b"\x83\xa1v\x02\xa4kind\xa3job\xa2id\xa1" + bytes([97 + n])),
    "an unknown field": ({}, lambda n: b'{"v":1,"kind":"job","id":"j%d","tenant":"acme"}' % n),
    "more than is allowed": ({}, lambda n: job(f"j{n}", sampling=Sampling(max_tokens=100_000))),
    "no adapters": ({}, lambda n: job(f"j{n}", adapter="nope")),
    "no such adapter": ({"adapters": Refuses(ValueError())}, lambda n: job(f"j{n}", adapter="no")),
    "a prompt that cannot be encoded": (
        {"prompts": Refuses(ValueError("?"))},
        lambda n: job(f"j{n}"),
    ),
    "a prompt that is refused": (
        {"prompts": Refuses(JobError(ErrorCode.INVALID_JOB, "?"))},
        lambda n: job(f"j{n}"),
    ),
    "a constraint": (
        {"constraints": Refuses(ValueError())},
        lambda n: job(f"j{n}", sampling=Sampling(regex=f"{n}")),
    ),
    "no reply topic": ({"tenants": ()}, lambda n: job(f"j{n}")),
    "no signature": (
        {"tenant_from": "signature"},
        lambda n: job(f"j{n}"),
    ),
}


@pytest.mark.parametrize("name", BAD)
async def test_a_bad_job_leaves_no_cycle(name: str, tmp_path: Any) -> None:
    """Whoever refuses it, and wherever."""
    flags, sent = BAD[name]
    if flags.get("tenant_from") == "signature":
        flags = flags | {"tenant_keys": tmp_path}
    async with Harness(**flags) as harness:
        harness.send(job("warm"))  # what is imported, cached or remembered once
        harness.send(sent(19))
        await harness.settle()
        with left_to_the_collector() as left:
            for number in range(COUNT):
                harness.send(sent(number))
            await harness.settle()
            answered = harness.state.unfinished
        assert answered <= 1
        assert ours(left) == []


@pytest.mark.parametrize("hopeless", [True, False])
async def test_an_append_that_fails_leaves_no_cycle(hopeless: bool) -> None:
    """Its records are those of an answer."""
    async with Harness() as harness:
        for number in range(COUNT):
            harness.send(job(f"j{number}"))
        await harness.settle()
        with left_to_the_collector() as left:
            for key in [*harness.engine.requests]:
                harness.writer.failures.append(AppendError("?", hopeless=hopeless))
                harness.step(Output(key, (1,), "a"))
                await harness.settle()
        assert ours(left) == []


async def test_what_ends_as_it_runs_leaves_no_cycle() -> None:
    """An answer, an error of the engine's, a cancel."""
    async with Harness() as harness:
        harness.send(job("warm"))
        await harness.settle()
        with left_to_the_collector() as left:
            for name in ("whole", "failed", "cancelled"):
                harness.send(job(name))
            await harness.settle()
            whole, failed = (harness.key_of(f"prompt of {name}") for name in ("whole", "failed"))
            harness.step(
                Output(whole, (1,), "a", finish="stop"),
                Output(failed, error=JobError(ErrorCode.INTERNAL, "?")),
            )
            entry = harness.state.find("acme", "cancelled")
            assert entry is not None
            harness.lifecycle.end(entry, JobError(ErrorCode.CANCELLED, "?"))
            del entry
            await harness.settle()
        assert ours(left) == []


class RefusingProducer:
    """A Kafka client that takes nothing."""

    async def send(self, *_: object, **__: object) -> None:
        """Refuse it as too large."""
        raise MessageSizeTooLargeError


async def test_a_record_that_the_client_refuses_leaves_no_cycle() -> None:
    """The frame that it was refused in has all records of the append."""
    writer = LogWriter(load_settings().settings, "w")
    writer._producer = RefusingProducer()
    with left_to_the_collector() as left:
        for _ in range(COUNT):
            with pytest.raises(TooLargeError):
                await writer.append("replies.acme", 0, b"j1", [b"value"])
    assert ours(left) == []


class UnreadableLogs:
    """A connection whose logs say that they cannot be read."""

    def __init__(self) -> None:
        self.follower = self
        self._followed: list[Any] = []

    def follow(self, place: Any, _: int, __: int) -> None:
        """Follow it until it is asked for records."""
        self._followed.append(place)

    def unfollow(self, place: Any) -> None:
        """Follow it no longer."""

    async def poll(self, _: float) -> None:
        """Say what is wrong."""
        await asyncio.sleep(0)
        raise PlaceError(self._followed.pop(), KafkaConnectionError())

    async def close(self) -> None:
        """Nothing is open."""


@pytest.mark.parametrize("reachable", [True, False])
async def test_a_reply_log_that_cannot_be_read_leaves_no_cycle(
    reachable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever reads it has the jobs at hand for which it is read."""

    async def make(_: object) -> UnreadableLogs:
        await asyncio.sleep(0)
        if not reachable:
            raise KafkaConnectionError
        return UnreadableLogs()

    monkeypatch.setattr(readback._Connection, "make", make)
    reader = KafkaLogReader(load_settings().settings, "w")

    async def read(asked: Job) -> None:
        with pytest.raises(ReadError):
            await reader.read(Partition("replies.acme", 0), 0, 1, lambda _: print(asked))

    await read(job("warm"))
    with left_to_the_collector() as left:
        for number in range(COUNT):
            await read(job(f"j{number}"))
    await reader.stop()
    assert ours(left) == []
