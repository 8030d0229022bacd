"""The reader rule against a slow reading of its text, and the properties that it promises."""

import itertools
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aril.schemas import (
    ClaimRecord,
    DoneEvent,
    DoneRecord,
    Epoch,
    ErrorCode,
    ErrorEvent,
    ErrorRecord,
    ReleaseRecord,
    ReplyRecord,
    ResetEvent,
    Timings,
    TokensEvent,
    TokensRecord,
    Usage,
    VisibleStream,
)

Log = tuple[ReplyRecord, ...]


class Line(NamedTuple):
    """A record in short: kind (C, R, T, D or E), epoch, writer, index, number of tokens."""

    kind: str
    epoch: tuple[int, int]
    writer: str
    start: int = 0
    tokens: int = 1

    @property
    def ids(self) -> tuple[int, ...]:
        """Ids that tell who wrote them, so that a mixed answer shows."""
        start = self.epoch[0] * 1000 + self.epoch[1] * 100 + ord(self.writer)
        return tuple(start * 10 + self.start + n for n in range(self.tokens))

    @property
    def text(self) -> str:
        """Text that tells the same."""
        return "".join(f"<{n}>" for n in self.ids)

    def record(self) -> ReplyRecord:
        """Return the record itself."""
        epoch = Epoch(*self.epoch)
        if self.kind == "C":
            return ClaimRecord(job="j", epoch=epoch, worker=self.writer)
        if self.kind == "R":
            return ReleaseRecord(job="j", epoch=epoch, worker=self.writer)
        if self.kind == "T":
            return TokensRecord(
                job="j",
                epoch=epoch,
                worker=self.writer,
                index=self.start,
                ids=self.ids,
                text=self.text,
            )
        if self.kind == "E":
            return ErrorRecord(
                job="j",
                epoch=epoch,
                worker=self.writer,
                index=self.start,
                code=ErrorCode.CANCELLED,
                message="",
                retryable=False,
            )
        return DoneRecord(
            job="j",
            epoch=epoch,
            worker=self.writer,
            index=self.start,
            text="!",
            finish_reason="stop",
            usage=Usage(1, self.start),
            adapter=None,
            digest=None,
            base="base",
            seed=0,
            timings=Timings(0.0, 0.0, 0.0),
        )


class Reading(NamedTuple):
    """What the text of the rule says is visible after a log."""

    epoch: tuple[int, int]
    writer: str | None
    ids: tuple[int, ...]
    text: str
    terminal: str | None
    resets: int


def read(log: tuple[Line, ...]) -> Reading:  # noqa: C901, PLR0911 - a branch for each clause
    """Transcribe the rule: the state after a log, from the state one line before."""
    if not log:
        return Reading((0, 0), None, (), "", None, 0)
    before, line = read(log[:-1]), log[-1]
    # "After a visible terminal nothing counts."
    if before.terminal is not None:
        return before
    # "A record of a lower epoch is ignored."
    if line.epoch < before.epoch:
        return before
    # "release changes nothing."
    if line.kind == "R":
        return before
    # "A higher epoch begins only with a claim, or with a record at index 0."
    now = before
    if line.epoch > before.epoch:
        if line.kind != "C" and line.start > 0:
            return before
        now = now._replace(epoch=line.epoch, writer=line.writer)
        # "A record at index 0 while tokens are visible withdraws them."
        if line.kind != "C" and before.ids:
            now = now._replace(ids=(), text="", resets=before.resets + 1)
    # "A claim keeps what is visible."
    if line.kind == "C":
        return now
    # Of an equal epoch "only the worker that began it counts".
    if line.writer != now.writer:
        return now
    # "A tokens record counts iff its index equals the count, else the whole record is ignored; a
    # terminal iff its index equals the count."
    if line.start != len(now.ids):
        return now
    if line.kind == "T":
        return now._replace(ids=now.ids + line.ids, text=now.text + line.text)
    text = now.text + ("!" if line.kind == "D" else "")
    return now._replace(terminal=line.kind, text=text)


def fold(log: Log) -> VisibleStream:
    """Feed a whole log."""
    stream = VisibleStream()
    for record in log:
        stream.feed(record)
    return stream


def reading(stream: VisibleStream) -> Reading:
    """Return the stream's state in the transcription's terms."""
    terminal = {DoneEvent: "D", ErrorEvent: "E", type(None): None}[type(stream.terminal)]
    ids = tuple(stream.token_ids)
    return Reading(stream.epoch, stream.writer, ids, stream.text, terminal, stream.resets)


LINES = st.builds(
    Line,
    kind=st.sampled_from("CRTTTTTDE"),
    epoch=st.tuples(st.integers(1, 3), st.integers(1, 2)),
    writer=st.sampled_from("ab"),
    start=st.integers(0, 4),
    tokens=st.integers(1, 3),
)
LOGS = st.lists(LINES, max_size=14).map(tuple)


@st.composite
def plausible_logs(draw: st.DrawFn) -> tuple[Line, ...]:
    """Draw a log of writers that mostly do the right thing: more of these get somewhere."""
    log: list[Line] = []
    for _ in range(draw(st.integers(0, 14))):
        seen = read(tuple(log))
        good_index = st.just(len(seen.ids))
        current = st.just((seen.epoch, seen.writer or "a"))
        any_writer = st.tuples(
            st.tuples(st.integers(1, 3), st.integers(1, 2)), st.sampled_from("ab")
        )
        epoch, writer = draw(st.one_of(current, current, any_writer))
        line = Line(
            kind=draw(st.sampled_from("CRTTTTTTD")),
            epoch=epoch if epoch > (0, 0) else (1, 1),
            writer=writer,
            start=draw(st.one_of(good_index, good_index, st.just(0), st.integers(0, 6))),
            tokens=draw(st.integers(1, 3)),
        )
        log.append(line)
    return tuple(log)


ANY_LOGS = LOGS | plausible_logs()


@given(ANY_LOGS)
def test_agrees_with_the_text_of_the_rule(log: tuple[Line, ...]) -> None:
    """After every record of a random log the stream is what a slow reading of the rule says."""
    stream = VisibleStream()
    for end, line in enumerate(log, 1):
        stream.feed(line.record())
        assert reading(stream) == read(log[:end])


SMALL = [
    Line(kind, (epoch, 1), writer, start, tokens)
    for epoch, writer in ((1, "a"), (1, "b"), (2, "b"))
    for kind, start, tokens in (
        ("C", 0, 1),
        ("R", 0, 1),
        ("T", 0, 1),
        ("T", 0, 2),
        ("T", 1, 1),
        ("D", 0, 1),
        ("D", 1, 1),
        ("E", 1, 1),
    )
]


def test_agrees_on_every_small_log() -> None:
    """The same, for each of the 13,824 logs of three records out of 24."""
    for log in itertools.product(SMALL, repeat=3):
        assert reading(fold(tuple(line.record() for line in log))) == read(log)


@given(ANY_LOGS)
def test_events_tell_the_whole_story(log: tuple[Line, ...]) -> None:
    """A caller that only follows the events ends up with what is visible."""
    stream, text, ended = VisibleStream(), "", 0
    ids: list[int] = []
    for line in log:
        for event in stream.feed(line.record()):
            assert not ended
            if isinstance(event, ResetEvent):
                assert event.withdrawn == len(ids) > 0
                ids, text = [], ""
            elif isinstance(event, TokensEvent):
                assert event.index == len(ids)
                ids += event.ids
                text += event.text
            else:
                assert event.index == len(ids)
                ended += 1
                text += event.text if isinstance(event, DoneEvent) else ""
        assert (ids, text, bool(ended)) == (stream.token_ids, stream.text, stream.finished)
        assert stream.count == len(ids)


@given(ANY_LOGS, st.data())
def test_appends_may_land_twice(log: tuple[Line, ...], data: st.DataObject) -> None:
    """A record that was accepted changes nothing when it lands again, however late."""
    once, twice = VisibleStream(), VisibleStream()
    landed: list[ReplyRecord] = []
    for line in log:
        record = line.record()
        events = once.feed(record)
        assert twice.feed(record) == events
        if events:
            landed.append(record)
        if landed:
            assert twice.feed(data.draw(st.sampled_from(landed))) == ()
        assert twice.snapshot() == once.snapshot()


@given(ANY_LOGS)
def test_epochs_never_fall_and_tokens_only_go_with_a_reset(log: tuple[Line, ...]) -> None:
    """What is visible is only ever extended, but for an explicit reset."""
    stream = VisibleStream()
    for line in log:
        epoch, ids = stream.epoch, stream.token_ids
        events = stream.feed(line.record())
        assert stream.epoch >= epoch
        if not any(isinstance(event, ResetEvent) for event in events):
            assert stream.token_ids[: len(ids)] == ids


@given(ANY_LOGS, LINES)
def test_copies_are_independent(log: tuple[Line, ...], line: Line) -> None:
    """A copy goes its own way, and equal histories have equal, hashable snapshots."""
    records = tuple(entry.record() for entry in log)
    stream = fold(records)
    before = stream.snapshot()
    twin = stream.copy()
    twin.feed(line.record())
    assert stream.snapshot() == before
    assert twin.snapshot() == fold((*records, line.record())).snapshot()
    assert len({before, stream.copy().snapshot()}) == 1


@pytest.mark.parametrize("kind", ["C", "T"])
def test_first_epoch_may_be_of_generation_zero(kind: str) -> None:
    """A broker that counts generations from 0 is served like any other."""
    stream = fold((Line(kind, (0, 1), "a").record(),))
    assert (stream.epoch, stream.writer) == (Epoch(0, 1), "a")


def test_token_ids_are_a_copy() -> None:
    """Whoever changes the list that a stream gave away does not change the stream."""
    stream = fold((Line("T", (1, 1), "a").record(),))
    stream.token_ids.clear()
    assert stream.count == 1
