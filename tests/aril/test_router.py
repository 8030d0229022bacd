"""The router by hand: whatever the reader does, each caller gets its events once and in order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aril.errors import StreamLost
from aril.router import Inbox, Mark, Router
from aril.schemas import DoneEvent, Epoch, TokensEvent, encode_redirect, encode_reply
from aril.transport import Fetched, Place
from tests.support.fake_worker import answer, done, tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aril.schemas import ReplyRecord


PLACE = Place("replies.acme", 0)


class Reader:
    """A reply topic of one partition and the reader that a router steers."""

    def __init__(self, records: Sequence[ReplyRecord]) -> None:
        self.log = [
            Fetched(PLACE, offset, record.job.encode(), encode_reply(record))
            for offset, record in enumerate(records)
        ]
        self.position: int | None = None
        self.reads = 0
        self.router = Router(follow=self._follow, unfollow=self._unfollow)

    def _follow(self, _place: Place, offset: int) -> None:
        self.position = offset

    def _unfollow(self, _place: Place) -> None:
        self.position = None

    def poll(self, count: int) -> None:
        """Deliver the next `count` records of the log."""
        if self.position is None:
            return
        records = self.log[self.position : self.position + count]
        self.reads += len(records)
        self.position += len(records)
        self.router.deliver(records)


def inbox(job: str, *, limit: int = 8, position: int = 0) -> Inbox:
    """Return an inbox of partition 0."""
    return Inbox(job, place=PLACE, position=position, limit=limit)


def texts(box: Inbox) -> list[str]:
    """Take what a caller has not taken yet."""
    found = []
    while (event := box.take()) is not None:
        assert isinstance(event, TokensEvent | DoneEvent)
        found.append(event.text)
    return found


JOBS = ("a", "b", "c")


@given(
    order=st.lists(st.sampled_from(JOBS), max_size=40),
    limits=st.tuples(*[st.integers(1, 5)] * len(JOBS)),
    moves=st.lists(st.tuples(st.sampled_from(JOBS), st.integers(0, 7)), max_size=60),
)
@settings(deadline=None)
def test_each_event_once_in_order(
    order: list[str], limits: tuple[int, ...], moves: list[tuple[str, int]]
) -> None:
    """For any log, inbox and poll sizes, caller speeds: nothing lost, doubled or unbounded."""
    records = [
        tokens(job, sum(earlier == job for earlier in order[:at]), str(at))
        for at, job in enumerate(order)
    ]
    reader = Reader(records)
    boxes = {job: inbox(job, limit=limit) for job, limit in zip(JOBS, limits, strict=True)}
    for box in boxes.values():
        reader.router.add(box)
    got: dict[str, list[str]] = {job: [] for job in JOBS}

    def take(job: str) -> None:
        event = boxes[job].take()
        if event is not None:
            assert isinstance(event, TokensEvent)
            got[job].append(event.text)
            reader.router.taken(boxes[job])

    for job, count in moves:
        reader.poll(count)
        take(job)
        assert all(box.waiting <= box.limit for box in boxes.values())
    for _ in range(2 * len(order) + 1):
        reader.poll(3)
        for job in JOBS:
            take(job)
    for job in JOBS:
        assert got[job] == [str(at) for at, owner in enumerate(order) if owner == job]


def test_who_seeks_is_told_when_it_is_there() -> None:
    """Not before all below its goal was offered, also where the last offsets hold no record."""
    reader = Reader([tokens("a", 0, "x"), tokens("b", 0, "y"), tokens("a", 1, "z")])
    box = inbox("a", limit=1)
    reader.router.add(box)
    reader.router.seek(box, 4)  # of which the last is a mark, and no record

    def poll(position: int) -> None:
        reader.poll(1)
        reader.router.arrived(lambda _: position)

    poll(1)
    poll(2)
    poll(3)
    reader.router.arrived(lambda _: 4)  # it has no room: what it has not taken was not offered
    assert box.goal == 4
    assert texts(box) == ["x"]
    reader.router.taken(box)
    reader.poll(1)
    reader.router.arrived(lambda _: 3)
    assert box.goal == 4
    poll(4)
    assert box.goal is None
    other = inbox("b", position=4)
    reader.router.add(other)
    reader.router.seek(other, 4)  # nothing to wait for
    assert other.goal is None


def test_all_stalled_rests_the_reader() -> None:
    """When no inbox has room the partition is left alone, and read again once one has."""
    reader = Reader([tokens("a", index, "x") for index in range(10)])
    box = inbox("a", limit=2)
    reader.router.add(box)
    reader.poll(10)
    assert not reader.router.following
    assert (box.waiting, reader.position) == (2, None)
    box.take()
    reader.router.taken(box)
    assert reader.position == 2


def test_finished_job_is_forgotten() -> None:
    """After its terminal a job holds no place, and its partition is no longer followed."""
    reader = Reader(answer("a", ["x"]))
    reader.router.add(inbox("a"))
    reader.poll(10)
    assert reader.router.following is False
    assert reader.position is None


def test_a_redirect_leads_back_to_the_first_answer() -> None:
    """A reader that began behind it sees all of it once; its neighbours see nothing twice."""
    first: list[ReplyRecord] = [tokens("a", 0, "x"), tokens("b", 0, "1"), tokens("a", 1, "y")]
    first.append(done("a", 2))
    reader = Reader([*first, tokens("b", 1, "2"), tokens("b", 2, "3")])
    reader.log.insert(5, Fetched(PLACE, 5, b"a", encode_redirect("a", 0)))
    reader.log[6] = reader.log[6]._replace(offset=6)
    late, beside = inbox("a", position=4), inbox("b", position=1)
    for box in (late, beside):
        reader.router.add(box)
    for _ in range(4):
        reader.poll(10)  # redirect and what follows it come in one poll
    assert texts(late) == ["x", "y", ""]
    assert late.start == 0
    assert texts(beside) == ["1", "2", "3"]


@pytest.mark.parametrize(("position", "start"), [(0, 0), (0, 3), (4, 4), (4, 9)])
def test_a_redirect_that_leads_nowhere_else_is_passed_over(position: int, start: int) -> None:
    """Only back, never forward or in a circle."""
    reader = Reader(answer("a", ["x", "y", "z"]))
    reader.log.append(Fetched(PLACE, 4, b"a", encode_redirect("a", start)))
    box = inbox("a", position=position)
    reader.router.add(box)
    reader.poll(10)
    assert (box.start, box.redirected, reader.reads) == (position, False, 5 - position)


def test_who_has_seen_tokens_is_not_led_back() -> None:
    """What a caller was given is not given again."""
    reader = Reader([tokens("a", 0, "old"), tokens("a", 0, "x", epoch=Epoch(2, 1))])
    reader.log.append(Fetched(PLACE, 2, b"a", encode_redirect("a", 0)))
    box = inbox("a", position=1)
    reader.router.add(box)
    reader.poll(10)
    assert texts(box) == ["x"]
    assert box.start == 1


def test_large_events_fill_an_inbox_too() -> None:
    """Its records' bytes are bounded, one record apart, and nothing is lost by that."""
    texts_sent = ["x" * 1_000 for _ in range(9)]
    reader = Reader(answer("a", texts_sent))
    box = Inbox("a", place=PLACE, position=0, limit=512, limit_bytes=2_000)
    reader.router.add(box)
    given: list[str] = []
    while not box.stream.finished or box.waiting:
        reader.poll(3)
        assert box.waiting <= 2
        event = box.take()
        reader.router.taken(box)
        assert isinstance(event, TokensEvent | DoneEvent)
        given.append(event.text)
    assert given[:9] == texts_sent
    assert reader.reads > len(reader.log)  # it went back for what it had left out


def test_a_record_larger_than_an_inbox_is_read() -> None:
    """Or its caller would wait for ever."""
    reader = Reader(answer("a", ["x" * 1_000, "y"]))
    box = Inbox("a", place=PLACE, position=0, limit=512, limit_bytes=10)
    reader.router.add(box)
    for text in ("x" * 1_000, "y"):
        reader.poll(9)
        assert texts(box) == [text]
        reader.router.taken(box)
    reader.poll(9)
    assert box.stream.finished


def test_older_start_rewinds_for_one_only() -> None:
    """A job that starts earlier moves the reader back; jobs beside it do not see records twice."""
    records = [tokens("a", 0, "a0"), tokens("b", 0, "b0"), tokens("b", 1, "b1")]
    reader = Reader(records)
    late, early = inbox("b", position=1), inbox("a")
    reader.router.add(late)
    reader.poll(10)
    reader.router.add(early)
    assert reader.position == 0
    reader.poll(10)
    assert (late.waiting, early.waiting) == (2, 1)


def test_trim_fails_only_what_is_gone() -> None:
    """When the log's start moves, jobs that still have their records go on."""
    reader = Reader([tokens("a", index, "x") for index in range(6)])
    gone, kept = inbox("b", position=0), inbox("a", position=4)
    reader.router.add(gone)
    reader.router.add(kept)
    reader.router.trim(PLACE, 3, 6)
    assert isinstance(gone.failure, StreamLost)
    assert kept.failure is None
    assert reader.position == 4


def test_who_has_failed_is_not_read_for_again() -> None:
    """Also when its caller takes what had come before."""
    reader = Reader([tokens("a", index, "x") for index in range(9)])
    box = inbox("a", limit=4)
    reader.router.add(box)
    reader.poll(10)
    assert box.stalled
    reader.router.fail_all(lambda: StreamLost("gone"))
    while box.take() is not None:
        reader.router.taken(box)
    assert reader.position is None
    assert not reader.router.following


def test_trim_that_leaves_nobody_ends_the_reading() -> None:
    """Else the reader would ask for the same offset, which is not there, for ever."""
    reader = Reader([tokens("a", index, "x") for index in range(6)])
    gone = inbox("a", position=0)
    reader.router.add(gone)
    reader.router.trim(PLACE, 3, 6)
    assert isinstance(gone.failure, StreamLost)
    assert reader.position is None
    assert not reader.router.following


@pytest.mark.parametrize(("mark", "left"), [(Mark(), 3), (Mark(0, 1), 2), (Mark(0, 3), 0)])
def test_replay_gives_only_the_rest(mark: Mark, left: int) -> None:
    """What a resume mark covers is folded but not given again; the terminal always is."""
    reader = Reader(answer("a", ["x", "y", "z"]))
    box = Inbox("a", place=PLACE, position=0, limit=9, resume_at=mark)
    reader.router.add(box)
    reader.poll(10)
    assert box.waiting == left + 1
    assert box.stream.text == "xyz"
