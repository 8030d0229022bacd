"""What is looked up in reply logs: where, from when on, and each log once."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

from aril.dead_letters.answers import AnswerBook, Told
from aril.dead_letters.letter import Place, Raw
from aril.schemas import Job, ReplyRecord, encode_reply, reply_partition
from tests.support.fake_worker import done, tokens
from tests.support.letters import SENT_MS, letter, record

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aril.dead_letters.letter import Letter
    from aril.dead_letters.logs import Logs

TOPIC = "replies.acme"
PARTITIONS = 4
SLACK_MS = 10
HOME = reply_partition("j1", PARTITIONS)
OTHER = (HOME + 1) % PARTITIONS


class MemoryLogs:
    """Logs that are lists of (time, record); the first `start` of each were deleted."""

    def __init__(self, start: int = 0) -> None:
        self.start = start
        self.logs: dict[int, list[tuple[int, ReplyRecord]]] = {at: [] for at in range(PARTITIONS)}
        self.reads: list[tuple[int, int, int]] = []

    def partitions(self, topic: str) -> list[int]:
        """See Logs."""
        return [*self.logs] if topic == TOPIC else []

    async def starts(self, _: str) -> dict[int, int]:
        """See Logs."""
        return dict.fromkeys(self.logs, self.start)

    async def ends(self, _: str) -> dict[int, int]:
        """See Logs."""
        return {at: len(log) for at, log in self.logs.items()}

    async def at(self, _: str, partition: int, at_ms: int, *, otherwise: int) -> int:
        """See Logs."""
        log = [*enumerate(self.logs[partition])][self.start :]
        return next((at for at, (time_ms, _) in log if time_ms >= at_ms), otherwise)

    async def read(self, topic: str, partition: int, start: int, end: int) -> AsyncIterator[Raw]:
        """See Logs."""
        self.reads.append((partition, start, end))
        for at in range(start, end):
            time_ms, reply = self.logs[partition][at]
            key = reply.job.encode()
            yield Raw(Place(topic, partition, at), time_ms, key, encode_reply(reply), ())


async def look_up(logs: MemoryLogs, *letters: Letter) -> list[Told | None]:
    """Ask for each letter."""
    book = AnswerBook(cast("Logs", logs), replies_prefix="replies.", slack_ms=SLACK_MS)
    told = await book.look_up(letters)
    return [told.get(each.identity) for each in letters]


def asked(at_ms: int = SENT_MS, job_id: str = "j1", partition: int | None = None) -> Letter:
    """Return a letter of acme's."""
    job = Job(id=job_id, tenant="acme", prompt="x", reply_partition=partition)
    return letter(record(job, sent_ms=at_ms, offset=at_ms - SENT_MS))


async def test_an_answer_is_found_where_the_job_has_it() -> None:
    """By the hash of its id, with its end's place."""
    logs = MemoryLogs()
    logs.logs[HOME] = [(SENT_MS + 1, tokens("j1", 0, "a")), (SENT_MS + 2, done("j1", 1))]
    (told,) = await look_up(logs, asked())
    assert told is not None
    assert told.ended is not None
    assert (told.ended.end, told.ended.ended) == ("done", Place(TOPIC, HOME, 1))


async def test_both_places_of_a_job_that_names_one_are_read() -> None:
    """A worker says in the other that there is no such partition."""
    for where in (HOME, OTHER):
        logs = MemoryLogs()
        logs.logs[where] = [(SENT_MS, done("j1", 0))]
        for partition, found in ((OTHER, True), (99, where == HOME), (None, where == HOME)):
            (told,) = await look_up(logs, asked(partition=partition))
            assert told is not None
            assert (told.ended is not None) is found


async def test_each_log_is_read_once_from_the_oldest_letter_on() -> None:
    """An answer is not older than its job, but for what brokers' clocks differ."""
    logs = MemoryLogs()
    logs.logs[HOME] = [(SENT_MS + at, tokens(f"k{at}", 0, "a")) for at in range(100)]
    logs.logs[HOME][60] = (SENT_MS + 60, done("j1", 0))
    told = await look_up(logs, asked(SENT_MS + 50), asked(SENT_MS + 80))
    assert logs.reads == [(HOME, 50 - SLACK_MS, 100)]
    assert all(each is not None and each.ended is not None for each in told)
    await look_up(logs, asked(SENT_MS + 500))
    assert logs.reads[1:] == [(HOME, 100, 100)]


async def test_a_job_that_was_sent_again_may_have_an_older_answer() -> None:
    """Its log is read whole."""
    logs = MemoryLogs()
    logs.logs[HOME] = [(0, done("j1", 0)), (SENT_MS, tokens("k", 0, "a"))]
    again = letter(record(Job(id="j1", tenant="acme", prompt="x")), "redirect_unwritable")
    (told,) = await look_up(logs, again)
    assert told is not None
    assert told.ended is not None


@pytest.mark.parametrize(
    ("start", "at", "lost"),
    [(0, 0, False), (2, 30, True), (2, 50, False), (2, 500, False), (9, 500, True)],
)
async def test_a_log_that_begins_later_may_have_lost_it(start: int, at: int, lost: bool) -> None:
    """Unless it still holds something from before the job."""
    logs = MemoryLogs(start)
    logs.logs[HOME] = [(SENT_MS + 10 * at, tokens("k", 0, "a")) for at in range(9)]
    old = asked(SENT_MS, "k2")
    told, _ = await look_up(logs, asked(SENT_MS + at), old)
    assert told is not None
    assert told.lost is lost
    assert told.begun is None


async def test_nobody_is_asked_for_nothing() -> None:
    """A tenant without a topic, a record that names nobody."""
    logs = MemoryLogs()
    nowhere = letter(record(Job(id="j1", tenant="nowhere", prompt="x")))
    told, none = await look_up(logs, nowhere, letter(record(b"\xc1", offset=3), "malformed"))
    assert told == Told("replies.nowhere", missing=True)
    assert none is None
    assert logs.reads == []
