"""The checker finds what it is there to find: a good history passes, each spoilt one does not."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from aril.schemas import (
    DoneEvent,
    Epoch,
    ErrorCode,
    ErrorRecord,
    JobError,
    TokensEvent,
    TokensRecord,
)
from tests.faults.checker import Report, check
from tests.faults.histories import (
    SECOND,
    TOKENS,
    A,
    B,
    done,
    good,
    history_of,
    records_of,
    tokens,
)
from tests.faults.history import Asked, Committed, Dead, Logged, Name
from tests.support.fault_content import tokens_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from aril.schemas import Event, ReplyRecord


def spoilt(change: Callable[[list[ReplyRecord]], object]) -> Report:
    """Change one job's log, and what its readers saw with it."""
    records = records_of(A)
    change(records)
    return check(history_of(records, records_of(B)))


def seen(change: Callable[[list[Event]], object]) -> Report:
    """Change what a live reader was given of one job; its log is good."""
    history = good()
    (name, events), other = history.live
    given = list(events)
    change(given)
    return check(replace(history, live=[(name, tuple(given)), other]))


def test_a_good_history_passes() -> None:
    """A take-over, a late zombie, a dead letter that landed twice: nothing of it is a fault."""
    report = check(good())
    assert report.violations == []
    assert report.counts["jobs"] == 2
    assert report.counts["tokens"] == 2 * TOKENS
    assert report.counts["claims"] == 2
    assert report.counts["resets"] == 0


def test_a_record_that_landed_twice_is_no_fault() -> None:
    """Appends may land twice: readers drop the second."""
    assert spoilt(lambda records: records.insert(2, records[1])).violations == []


@pytest.mark.parametrize("lost", [0, 1, 4, 6])
def test_a_lost_record_is_found(lost: int) -> None:
    """Without one of its records an answer has no end."""
    assert "terminal" in spoilt(lambda records: records.pop(lost)).rules


def test_a_lost_terminal_is_found() -> None:
    """An answer that just stops is no answer."""
    assert "terminal" in spoilt(lambda records: records.pop()).rules


@pytest.mark.parametrize("index", [0, 2, 5])
def test_an_altered_token_is_found_whether_or_not_it_is_visible(index: int) -> None:
    """Content is a function of tenant, job and index."""

    def alter(records: list[ReplyRecord]) -> None:
        at = [type(each) for each in records].index(TokensRecord) + index + (index > 2)
        token = records[at]
        assert isinstance(token, TokensRecord)
        records[at] = replace(token, ids=(1,))

    assert "content" in spoilt(alter).rules
    hidden = replace(tokens(A, 3), ids=(1,))
    assert spoilt(lambda records: records.insert(8, hidden)).rules == {"content"}


def test_altered_text_is_found() -> None:
    """The joined texts are the answer."""
    changed = replace(tokens(A, 1), text="acme:job-1:7 ")
    assert "text" in spoilt(lambda records: records.__setitem__(1, changed)).rules


def test_another_tenants_tokens_are_found() -> None:
    """The same job id, the same index, the other tenant: the content tells."""
    theirs = replace(tokens(B, 1), job=A.job)
    assert "content" in spoilt(lambda records: records.__setitem__(1, theirs)).rules


def test_a_record_in_another_tenants_topic_is_found() -> None:
    """Where nobody asked for such a job, and where somebody has one of that name."""
    stray = tokens(Name("acme", "job-9"), 0)
    assert "unknown_job" in spoilt(lambda records: records.append(stray)).rules
    theirs = Logged("acme", 0, 99, 1, b"job-1", tokens(B, 0))
    history = good()
    assert "content" in check(replace(history, log=[*history.log, theirs])).rules


def test_a_wrong_key_is_found() -> None:
    """Readers find their records by the key."""
    history = good()
    log = [replace(history.log[0], key=b"job-2"), *history.log[1:]]
    assert check(replace(history, log=log)).rules == {"key"}


def test_a_torn_terminal_is_found() -> None:
    """An end before the end, or one with less than the rest of the text."""
    early = done(A, SECOND, "w2", index=4)
    assert {"length", "text"} <= spoilt(lambda records: records.insert(5, early)).rules
    more = done(A, SECOND, "w2", text="and")
    assert "text" in spoilt(lambda records: records.__setitem__(-1, more)).rules


def test_an_error_is_found() -> None:
    """No fault of a worker is a tenant's."""
    told = ErrorRecord.of(
        JobError(ErrorCode.CRASH_LOOP, "x"), job=A.job, epoch=SECOND, worker="w2", index=4
    )
    assert "error" in spoilt(lambda records: records.insert(5, told)).rules


def test_a_zombie_with_the_owners_epoch_is_found() -> None:
    """Two workers must never write under one epoch, even where readers cannot see it."""
    zombie = tokens(A, 3, SECOND, "w1")
    assert spoilt(lambda records: records.insert(5, zombie)).rules == {"two_writers"}


def test_a_reset_is_found_unless_a_zombie_explains_it() -> None:
    """A start at index 0 withdraws what is visible: only a zombie with a fresh job may cause it."""
    again = [tokens(A, index, SECOND, "w2") for index in range(TOKENS)]
    records: list[ReplyRecord] = [tokens(A, 0), tokens(A, 1), *again, done(A, SECOND, "w2")]
    history = history_of(records, records_of(B))
    assert check(history).rules == {"reset"}
    report = check(replace(history, zombies=True))
    assert report.violations == []
    assert report.counts["resets"] == 1
    same = [replace(each, epoch=Epoch(3, 2)) if each.epoch == SECOND else each for each in records]
    history = history_of(same, records_of(B))
    assert check(replace(history, zombies=True)).rules == {"reset"}


@pytest.mark.parametrize("at", [0, 3])
def test_a_live_reader_that_lost_or_doubled_or_swapped_an_event_is_found(at: int) -> None:
    """What a client yields is checked event by event."""
    assert {"index", "agreement"} <= seen(lambda events: events.pop(at)).rules
    assert {"index", "agreement"} <= seen(lambda events: events.insert(at, events[at])).rules
    assert (
        "index"
        in seen(
            lambda events: events.__setitem__(slice(at, at + 2), [events[at + 1], events[at]])
        ).rules
    )


def test_a_live_reader_that_saw_more_than_the_answer_is_found() -> None:
    """A token, or a second terminal, behind the terminal; or no terminal at all."""

    def late(events: list[Event]) -> None:
        events.append(TokensEvent(TOKENS, tokens_of(*A, TOKENS, TOKENS + 1), ""))

    assert "after_terminal" in seen(late).rules
    assert "after_terminal" in seen(lambda events: events.append(events[-1])).rules
    assert "terminal" in seen(lambda events: events.pop()).rules


def test_a_live_reader_with_other_text_is_found() -> None:
    """Live and late agree to the byte."""

    def change(events: list[Event]) -> None:
        assert isinstance(events[-1], DoneEvent)
        events[-1] = replace(events[-1], text="!")

    assert {"agreement", "text"} <= seen(change).rules


@pytest.mark.parametrize(
    "early", [Committed(8_999, 0, 1), Committed(1_999, 0, 0, (range(1, 2),)), Committed(0, 0, 3)]
)
def test_a_commit_before_its_time_is_found(early: Committed) -> None:
    """A position, or a done list, that names what is not in the reply log yet."""
    assert check(replace(good(), committed=[early])).rules == {"committed"}


def test_poison_is_put_aside_and_nothing_else_is() -> None:
    """Lost poison, a buried job, a letter from nowhere."""
    history = replace(good(), committed=[])
    assert check(replace(history, dead=[])).rules == {"poison"}
    for extra in (Dead(0, 0, 1), Dead(0, 7, 1)):
        assert check(replace(history, dead=[*history.dead, extra])).rules == {"poison"}


def test_a_job_that_never_ends_is_found() -> None:
    """What was waited for in vain is told."""
    assert check(replace(good(), unfinished=[A])).rules == {"liveness"}


def test_a_job_that_was_left_may_have_no_end_but_no_wrong_one() -> None:
    """Nobody waits for it; what was seen of it is the answer's beginning all the same."""
    history = history_of(records_of(A)[:5], records_of(B))
    history = replace(history, asked=[Asked(A, TOKENS, "info"), Asked(B, TOKENS)], committed=[])
    assert check(history).violations == []
    name, events = history.live[0]
    wrong = (*events[:-1], TokensEvent(3, (1,), ""))
    assert {"content", "agreement"} <= check(replace(history, live=[(name, wrong)])).rules
