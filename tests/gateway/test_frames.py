"""What is sent of any answers, cut at any event: the rest is all that was not sent."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aril.errors import BadToken
from aril.gateway import ids
from aril.gateway.failures import Refusal
from aril.gateway.frames import Frames
from aril.gateway.ids import Place, Standing
from aril.gateway.places import id_of
from aril.openai.common import Asked
from aril.openai.errors import Withdrawn
from aril.openai.jobs import JobFields
from aril.schemas import DoneEvent, ResetEvent, Timings, TokensEvent, Usage
from aril.stream import ResumeToken
from tests.support.asgi import SentEvent, parse_events

if TYPE_CHECKING:
    from aril.schemas import Event
    from aril.stream import Stream


@dataclass
class Told:
    """A stream as far as frames look at it."""

    token: ResumeToken
    finished: bool = False

    @property
    def job(self) -> str:
        """The job's id."""
        return self.token.job

    def take(self, event: Event) -> None:
        """Stand behind an event."""
        if isinstance(event, TokensEvent):
            self.token = replace(self.token, count=self.token.count + len(event.ids))
        elif isinstance(event, ResetEvent):
            self.token = replace(self.token, count=0, resets=self.token.resets + 1)
        else:
            self.finished = True


def done(text: str) -> DoneEvent:
    """Make an end."""
    return DoneEvent(
        index=0,
        text=text,
        finish_reason="stop",
        usage=Usage(1, 1),
        adapter=None,
        digest=None,
        base="tiny",
        seed=1,
        timings=Timings(1.0, 2.0, 3.0),
    )


texts = st.sampled_from(["", "a", "é ", "\n", "\u2028"])
tokens = st.builds(
    lambda count, text: TokensEvent(0, tuple(range(count)), text), st.integers(1, 3), texts
)
answers = st.builds(
    lambda parts, resets, last: [*([ResetEvent(0)] * resets), *parts, done(last)],
    st.lists(tokens, max_size=5),
    st.integers(0, 1),
    texts,
)


@st.composite
def histories(draw: st.DrawFn) -> tuple[int, list[tuple[int, Event]]]:
    """Draw the answers of up to three choices, in one order of coming."""
    found = draw(st.lists(answers, min_size=1, max_size=3))
    order = draw(st.permutations([at for at, each in enumerate(found) for _ in each]))
    left = [iter(each) for each in found]
    return len(found), [(at, next(left[at])) for at in order]


def sent(
    asked: Asked, count: int, history: list[tuple[int, Event]], after: list[Place] | None = None
) -> list[SentEvent]:
    """Return what is sent of a history."""
    streams = [Told(ResumeToken(f"j.{at}", at, 10 * at)) for at in range(count)]
    frames = Frames(asked, cast("list[Stream]", streams), prefix="chatcmpl-", after=after)
    for at, event in history:
        streams[at].take(event)
        frames.add(at, event)
    frames.close()
    events = parse_events(frames.take())
    assert not frames.waiting
    return [SentEvent(re.sub(r'"created":\d+', "", each.data), each.id) for each in events]


@given(histories(), st.booleans(), st.booleans(), st.booleans())
def test_the_rest_behind_any_event(
    told: tuple[int, list[tuple[int, Event]]], usage: bool, chat: bool, ids_too: bool
) -> None:
    """For any answers, in any order, cut anywhere."""
    count, history = told
    asked = Asked(
        endpoint="chat.completion" if chat else "text_completion",
        model="m",
        jobs=(JobFields(),) * count,
        n=count,
        include_usage=usage,
        return_token_ids=ids_too,
        echoed=() if chat else ("echo",) * count,
    )
    whole = sent(asked, count, history)
    assert len({each.id for each in whole}) == len(whole)
    for at, each in enumerate(whole):
        places, closed = ids.read_event_id(str(each.id))
        rest = whole[at + 1 :]
        if closed:
            assert rest == []
            continue
        assert sent(asked, count, history, places) == rest


@given(histories())
def test_a_reset_behind_something(told: tuple[int, list[tuple[int, Event]]]) -> None:
    """Whoever was shown some of it is told, also who goes on behind that."""
    count, history = told
    asked = Asked(endpoint="chat.completion", model="m", jobs=(JobFields(),) * count, n=count)
    streams = [Told(ResumeToken(f"j{at}", at, 0)) for at in range(count)]
    frames = Frames(asked, cast("list[Stream]", streams), prefix="chatcmpl-")
    first = TokensEvent(0, (1,), "shown")
    streams[0].take(first)
    frames.add(0, first)
    places, _ = ids.read_event_id(str(parse_events(frames.take())[-1].id))
    for after in (None, places):
        streams = [Told(ResumeToken(f"j{at}", at, 0)) for at in range(count)]
        frames = Frames(asked, cast("list[Stream]", streams), prefix="chatcmpl-", after=after)
        streams[0].take(first)
        frames.add(0, first)
        streams[0].take(ResetEvent(0))
        with pytest.raises(Withdrawn):
            frames.add(0, ResetEvent(0))
    del history


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9), st.booleans()), min_size=1))
def test_ids_are_read_as_they_were_written(places: list[tuple[int, int, bool]]) -> None:
    """Any places, closed or not; two places have one id only if they are one."""
    made = [
        Place(ResumeToken(f"job.{at}-_", at, 7), Standing(resets, count, ended))
        for at, (resets, count, ended) in enumerate(places)
    ]
    joined = ",".join(map(ids.place_id, made))
    assert ids.read_event_id(joined) == (made, False)
    if all(each.standing.ended for each in made):
        assert ids.read_event_id(ids.closed_id(joined)) == (made, True)
    starts = [each.start for each in made]
    assert [
        each.start for each in ids.places_of("cmpl-", ids.answer_id("cmpl-", starts), "acme")
    ] == starts


@given(
    st.text("ab.-_0", min_size=1, max_size=9),
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 9), st.booleans()), min_size=2, max_size=20
    ),
    st.booleans(),
)
def test_the_jobs_of_a_request_are_named_once(
    name: str, places: list[tuple[int, int, bool]], closed: bool
) -> None:
    """And read as if each was; ids that name each are read, too."""
    made = [
        Place(ResumeToken(ids.job_of_choice(name, at), at, 7), Standing(resets, count, ended))
        for at, (resets, count, ended) in enumerate(places)
    ]
    starts = [each.start for each in made]
    answer = ids.answer_id("cmpl-", starts)
    assert len(answer) <= len("cmpl-,") + len(f".{name}.99") + len(made) * len("99.7,")
    joined = ",".join(
        ids.place_id(each, short=short)
        for each, short in zip(made, ids.nameless([each.job for each in starts]), strict=True)
    )
    whole = ",".join(map(ids.place_id, made))
    assert len(joined) < len(whole)
    closed = closed and made[-1].standing.ended
    for text in (joined, whole):
        given_out = ids.closed_id(text) if closed else text
        assert ids.read_event_id(given_out) == (made, closed)
    long = "cmpl-" + ",".join(map(id_of, starts))
    for text in (answer, long):
        assert [each.start for each in ids.places_of("cmpl-", text, "acme")] == starts


@given(st.text(st.sampled_from("0123456789.,~ajob-_ é"), max_size=60))
def test_any_text_is_an_id_or_refused(text: str) -> None:
    """What strangers send is read or refused, by nothing else than what is expected."""
    for read in (ids.read_event_id, lambda text: ids.places_of("", text, "acme")):
        try:
            read(text)
        except BadToken:
            continue


@pytest.mark.parametrize(
    "given",
    [Standing(0, 1), Standing(0, 4), Standing(0, 1, ended=True), Standing(1, 0), Standing(0, 3)],
)
def test_places_that_are_none(given: Standing) -> None:
    """Inside of an event, or where the answer never was."""
    history: list[tuple[int, Event]] = [(0, TokensEvent(0, (1, 2), "a")), (0, done(""))]
    asked = Asked(endpoint="chat.completion", model="m", jobs=(JobFields(),))
    with pytest.raises(Refusal):
        sent(asked, 1, history, [Place(ResumeToken("j0", 0, 0), given)])
