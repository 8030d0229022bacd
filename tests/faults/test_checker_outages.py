"""The checker's rules for outages, and for what was appended unreadable: each finds its breach."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from aril.schemas import ErrorCode, ErrorEvent, ErrorRecord, JobError
from tests.faults.checker import check
from tests.faults.histories import (
    SECOND,
    TOKENS,
    A,
    B,
    done,
    history_of,
    log_of,
    records_of,
    tokens,
)
from tests.faults.history import Asked, Committed, Dead, Input, Name, Outage, fold
from tests.support.fault_content import digest_of

if TYPE_CHECKING:
    from tests.faults.history import History

C = Name(B.tenant, "job-2")
STORE = Outage(600, 750, 20_000, A.tenant, "support")
BATCH = Input(0, 3, None, kind="unreadable", span=2)


def with_an_outage(outage: Outage) -> History:
    """Make a history in which B's tenant has an answer without and one with an adapter."""
    history = history_of(records_of(A), records_of(B))
    digest = digest_of(C.tenant, "support")
    theirs = [tokens(C, index, digest=digest) for index in range(TOKENS)]
    log = log_of(C.tenant, [*theirs, done(C, adapter="support", digest=digest)])
    return replace(
        history,
        asked=[*history.asked, Asked(C, TOKENS, adapter="support", codec="lz4")],
        log=[*history.log, *log],
        live=[*history.live, (C, fold(log).events)],
        inputs=[*history.inputs, Input(0, 3, C, 800)],
        committed=[],
        outages=[outage],
    )


@pytest.mark.parametrize("outage", [STORE, Outage(600, 750, 20_000, A.tenant)])
def test_others_are_answered_during_an_outage(outage: Outage) -> None:
    """Jobs sent and ended while it lasted, by the backbone and by adapters: both have to be."""
    history = with_an_outage(outage)
    report = check(history)
    assert report.violations == []
    assert report.counts["outages"] == 1
    assert report.counts["packed by lz4"] == 1
    for changed, where in (
        (outage._replace(begun_ms=750), {B.tenant}),  # B was sent at 700, C at 800
        (outage._replace(begun_ms=810), {B.tenant}),
        (outage._replace(ended_ms=6_999), {B.tenant, str(B)}),  # C ends at 7,000, B at 9,000
        (outage._replace(settled_ms=800, ended_ms=6_999), {B.tenant, str(B), str(C)}),
        (outage._replace(settled_ms=800, ended_ms=7_000), {B.tenant, str(B)}),
    ):
        report = check(replace(history, outages=[changed]))
        assert report.rules == {"stood_still"}
        assert {each.where for each in report.violations} == where
    assert len(check(replace(history, outages=[outage._replace(begun_ms=810)])).violations) == 2
    given_up = replace(history, unfinished=[B])  # B's end was its reader's doing
    assert check(given_up).rules == {"liveness", "stood_still"}


def test_an_ill_store_excuses_those_who_need_it_and_them_alone() -> None:
    """An error of ours, that may be tried again; of that tenant, adapter and time."""
    ill = STORE._replace(ill=True)
    failed = JobError(ErrorCode.INTERNAL, "the job could not be prepared")
    end = ErrorRecord.of(failed, job=A.job, epoch=SECOND, worker="w2", index=0)
    history = with_an_outage(ill)
    (_, *live), (_, b, c) = history.live, history.asked
    log = log_of(A.tenant, [end])
    history = replace(
        history,
        asked=[Asked(A, TOKENS, adapter="support"), b, c],
        log=[*log, *(each for each in history.log if each.tenant != A.tenant)],
        live=[(A, fold(log).events), *live],
    )
    assert check(history).violations == []
    for outage in (
        STORE,
        ill._replace(adapter="tone"),
        ill._replace(begun_ms=1_001),  # A's end stands at 1,000
        ill._replace(begun_ms=0, ended_ms=499),  # it was sent at 500
    ):
        assert "error" in check(replace(history, outages=[outage])).rules
    final = ErrorEvent(index=0, code=ErrorCode.INTERNAL, message="", retryable=False)
    assert check(replace(history, live=[(A, (final,)), *live])).rules == {"error"}


def test_an_unreadable_batch_is_told_of_once_at_least() -> None:
    """By a letter at any of its offsets; none of them counts as finished before."""
    history = history_of(records_of(A), records_of(B))
    history = replace(
        history,
        inputs=[*history.inputs, BATCH],
        dead=[*history.dead, Dead(0, 3, 9_500)],
        committed=[Committed(99_000, 0, 5)],
    )
    report = check(history)
    assert report.violations == []
    assert report.counts["unreadable batches and records"] == 1
    again = [*history.dead, Dead(0, 4, 9_700)]  # its first offset was deleted in between
    assert check(replace(history, dead=again)).violations == []
    assert check(replace(history, dead=history.dead[:2])).rules == {"poison", "committed"}
    assert check(replace(history, dead=[*history.dead, Dead(0, 5, 9_500)])).rules == {"poison"}
    early = Committed(9_499, 0, 0, (range(4, 5),))
    assert check(replace(history, committed=[early])).rules == {"committed"}
