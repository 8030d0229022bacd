"""The checker's rules for other kinds of jobs and for logs that were cut: each finds its breach."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from aril.schemas import (
    Activation,
    Epoch,
    ErrorCode,
    ErrorEvent,
    ErrorRecord,
    JobError,
    MixedAdapter,
    TokensEvent,
)
from tests.faults.checker import Report, check
from tests.faults.histories import (
    SECOND,
    TOKENS,
    A,
    B,
    claim,
    done,
    good,
    history_of,
    records_of,
    tokens,
)
from tests.faults.history import Asked, Committed, Dead, Input, Name, Trim
from tests.faults.summary import BREACHES, breaches
from tests.support.fault_content import digest_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aril.schemas import ReplyRecord
    from tests.faults.history import History

CANCELLED = frozenset({"done", "cancelled"})
LATE = frozenset({"done", "deadline_exceeded"})
REFUSED = frozenset({"unknown_adapter"})


def error(code: ErrorCode, index: int, epoch: Epoch = SECOND, worker: str = "w2") -> ErrorRecord:
    """Make a terminal that is an error."""
    told = JobError(code, "so it is")
    return ErrorRecord.of(told, job=A.job, epoch=epoch, worker=worker, index=index)


def of(records: Sequence[ReplyRecord], asked: Asked) -> History:
    """Make a history in which job A is of another kind."""
    history = history_of([*records], records_of(B))
    return replace(history, asked=[asked, Asked(B, TOKENS)])


def adapted(told: str = "support", used: str = "support") -> Report:
    """Check a job that asked for one adapter, says that it had another, and used a third."""
    digest = digest_of(A.tenant, used)
    records = [tokens(A, index, digest=digest) for index in range(TOKENS)]
    end = done(A, adapter=told, digest=digest_of(A.tenant, told))
    return check(of([*records, end], Asked(A, TOKENS, adapter="support")))


def test_an_adapters_answer_passes_and_no_others() -> None:
    """Of the wrong adapter, of another tenant's of that name, of the backbone; or so it says."""
    report = adapted()
    assert report.violations == []
    assert report.counts["adapters"] == 1
    assert {"content", "text"} <= adapted(used="tone").rules
    assert adapted(told="tone").rules == {"adapter"}
    theirs = [tokens(A, 0, digest=digest_of(B.tenant, "support")), *records_of(A)[1:]]
    assert "content" in check(of(theirs, Asked(A, TOKENS, adapter="support"))).rules
    assert {"content", "adapter"} <= check(
        of(records_of(A), Asked(A, TOKENS, adapter="support"))
    ).rules
    assert {"content", "adapter"} <= check(
        of(
            [tokens(A, 0, digest=digest_of(A.tenant, "tone")), done(A, adapter="tone", index=1)],
            Asked(A, 1),
        )
    ).rules


def voiced(asked: Asked, voice: str | None, **told: Any) -> set[str]:
    """Check a job whose answer tells of its adapters by `voice`, and its end by what is told."""
    records = [tokens(A, index, digest=voice) for index in range(TOKENS)]
    end = {"adapter": asked.adapter, "digest": asked.digest} | told
    return check(of([*records, done(A, **end)], asked)).rules


def test_a_strength_passes_and_no_other() -> None:
    """Of another strength, or of 1 where another was asked for."""
    support = digest_of(A.tenant, "support")
    weak = Asked(A, TOKENS, adapter="support", scale=0.5)
    assert voiced(weak, f"{support}*0.5") == set()
    assert {"content"} <= voiced(weak, support)
    assert {"content"} <= voiced(weak, f"{support}*4")


def test_a_mixture_passes_and_no_other() -> None:
    """In another order, with other weights, without one of its adapters; or so its end says."""
    support, style = digest_of(A.tenant, "support"), digest_of(A.tenant, "house-style")
    mixed = Asked(A, TOKENS, mixture=(("support", 1.0), ("house-style", -1.0)))
    told = MixedAdapter("support", support, 1.0), MixedAdapter("house-style", style, -1.0)
    assert voiced(mixed, f"{support}+{style}*-1", adapters=told) == set()
    assert voiced(mixed, f"{support}+{style}*-1", adapters=told[:1]) == {"adapter"}
    assert {"content"} <= voiced(mixed, f"{style}*-1+{support}", adapters=told)
    assert {"content"} <= voiced(mixed, f"{support}+{style}", adapters=told)
    assert {"content"} <= voiced(mixed, support, adapters=told)


def test_an_invocation_counts_where_it_stands() -> None:
    """At another place, everywhere, or not at all; without one only the backbone's passes."""
    tone = digest_of(A.tenant, "tone")
    plain = Asked(A, TOKENS, adapter="tone")
    assert plain.activation == Activation(None)
    assert voiced(plain, None, activation=Activation(None)) == set()
    assert {"content"} <= voiced(plain, tone, activation=Activation(None))
    assert voiced(plain, None) == {"adapter"}
    named = Asked(Name("acme", "job-7-17-1"), TOKENS, adapter="tone")
    assert named.activation == Activation(len("acme/job-7-1"))
    assert named.voice == f"{tone}@12"


@pytest.mark.parametrize(
    ("ends", "code"),
    [(CANCELLED, ErrorCode.CANCELLED), (LATE, ErrorCode.DEADLINE_EXCEEDED)],
)
def test_a_job_that_may_end_early_ends_so_or_whole(ends: frozenset[str], code: ErrorCode) -> None:
    """Either end is right, for it and at any place; for its neighbours neither is."""
    asked = Asked(A, TOKENS, ends=ends)
    assert check(of(records_of(A), asked)).violations == []
    for count in (4, 5, 6):
        early = [*records_of(A)[:count], error(code, count - 1)]
        history = replace(of(early, asked), committed=[])
        report = check(history)
        assert report.violations == []
        assert report.counts[code.value] == 1
        assert check(replace(history, asked=[Asked(A, TOKENS), Asked(B, TOKENS)])).rules == {
            "error"
        }
    other = error(ErrorCode.INTERNAL, 3)
    assert "error" in check(of([*records_of(A)[:4], other], asked)).rules


def test_an_early_end_that_misplaces_or_follows_another_is_found() -> None:
    """An error not behind all visible tokens is no end; nothing is given behind one."""
    asked = Asked(A, TOKENS, ends=CANCELLED)
    torn = [*records_of(A)[:5], error(ErrorCode.CANCELLED, 2)]
    assert "terminal" in check(of(torn, asked)).rules
    history = of([*records_of(A)[:5], error(ErrorCode.CANCELLED, 4)], asked)
    (name, events), other = history.live
    for extra in (events[-1], TokensEvent(4, (1,), "")):
        report = check(replace(history, live=[(name, (*events, extra)), other]))
        assert "after_terminal" in report.rules
    assert "terminal" in check(replace(history, live=[(name, events[:-1]), other])).rules


def test_a_live_reader_that_was_told_another_end_is_found() -> None:
    """Live and late agree on how a job ended."""
    history = of([*records_of(A)[:5], error(ErrorCode.CANCELLED, 4)], Asked(A, 6, ends=CANCELLED))
    (name, events), other = history.live
    assert check(replace(history, committed=[])).violations == []
    told = ErrorEvent(index=4, code=ErrorCode.DEADLINE_EXCEEDED, message="", retryable=True)
    report = check(replace(history, live=[(name, (*events[:-1], told)), other]))
    assert "agreement" in report.rules


def test_a_deadline_before_its_time_is_found_unless_a_clock_was_off() -> None:
    """Job A was sent at 500 ms, and its end stands in the log at 6,000."""
    records = [*records_of(A)[:5], error(ErrorCode.DEADLINE_EXCEEDED, 4)]
    due = replace(of(records, Asked(A, TOKENS, ends=LATE, deadline_ms=5_500)), committed=[])
    assert check(due).violations == []
    late = Asked(A, TOKENS, ends=LATE, deadline_ms=5_501)
    early = replace(due, asked=[late, Asked(B, TOKENS)])
    assert check(early).rules == {"early"}
    assert check(replace(early, clocks_off=[(0, 5_999)])).rules == {"early"}
    assert check(replace(early, clocks_off=[(5_000, 7_000)])).violations == []


def test_a_job_to_be_refused_is_refused_as_it_should_be() -> None:
    """With its own error: neither with another one nor with an answer."""
    asked = Asked(A, TOKENS, ends=REFUSED)
    right = [error(ErrorCode.UNKNOWN_ADAPTER, 0)]
    assert check(replace(of(right, asked), committed=[])).violations == []
    assert check(of([error(ErrorCode.INVALID_JOB, 0)], asked)).rules == {"error"}
    assert check(of(records_of(A), asked)).rules == {"refusal"}
    assert "terminal" in check(of([], asked)).rules


def test_a_broken_job_is_put_aside_once_at_least() -> None:
    """Answered and put aside; its twin may be, too, or be finished with it."""
    history = of([error(ErrorCode.INVALID_JOB, 0)], Asked(A, 1, ends=frozenset({"invalid_job"})))
    broken = Input(0, 0, A, kind="broken")
    twin = Input(0, 3, A, kind="broken")
    history = replace(
        history,
        inputs=[broken, *history.inputs[1:], twin],
        dead=[*history.dead, Dead(0, 0, 3_000)],
        committed=[Committed(99_000, 0, 4)],
    )
    assert check(history).violations == []
    assert check(replace(history, dead=[*history.dead, Dead(0, 3, 4_000)])).violations == []
    assert check(replace(history, dead=[history.dead[0], Dead(0, 3, 4_000)])).rules >= {"poison"}
    early = Committed(2_999, 0, 0, (range(3, 4),))
    assert check(replace(history, committed=[early])).rules == {"committed"}


def test_a_cancel_is_finished_with_its_job() -> None:
    """Its offset may not be committed earlier, but where the topic grew in between."""
    history = of(records_of(A), Asked(A, TOKENS, ends=CANCELLED))
    for cancel, rules in (
        (Input(0, 3, A, kind="cancel"), {"committed"}),
        (Input(1, 0, A, kind="cancel"), set[str]()),
    ):
        early = Committed(8_999, cancel.partition, 0, (range(cancel.offset, cancel.offset + 1),))
        told = replace(history, inputs=[*history.inputs, cancel], committed=[early])
        assert check(told).rules == rules
        whole = Committed(99_000, cancel.partition, cancel.offset + 1)
        assert check(replace(told, committed=[whole])).violations == []
        buried = Dead(cancel.partition, cancel.offset, 9_000)
        assert "poison" in check(replace(told, dead=[*told.dead, buried])).rules


def withdrawn() -> History:
    """Make a history in which retention passed three tokens, and their reader was told."""
    again = Epoch(4, 2)
    records: list[ReplyRecord] = [
        *(tokens(A, index) for index in range(3)),
        claim(A),
        *(tokens(A, index, again, "w2") for index in range(TOKENS)),
        done(A, again, "w2"),
    ]
    history = history_of(records, records_of(B))
    return replace(history, trims=[Trim(A.tenant, 0, 3)], withdrawn=[A], committed=[])


def test_a_reset_after_a_deletion_passes_and_no_other() -> None:
    """Only where all that was visible was deleted, in that very partition, is it explained."""
    history = withdrawn()
    report = check(history)
    assert report.violations == []
    assert report.counts["resets"] == 1
    for trims in (
        [],
        [Trim(A.tenant, 0, 2)],
        [Trim(A.tenant, 0, 5)],
        [Trim(A.tenant, 1, 3)],
        [Trim(B.tenant, 0, 3)],
    ):
        assert check(replace(history, trims=trims)).rules == {"reset"}


def test_a_reader_that_was_not_told_of_a_deletion_is_found() -> None:
    """It had seen what is gone; whoever had been left, or lost, need not have seen more."""
    history = replace(history_of(records_of(A), records_of(B)), withdrawn=[A])
    assert check(history).rules == {"untold"}
    left = [Asked(A, TOKENS, "info"), Asked(B, TOKENS)]
    assert check(replace(history, asked=left)).violations == []


def test_a_loss_that_no_deletion_explains_is_found() -> None:
    """A client may say that replies are gone only where they are."""
    history = withdrawn()
    (name, events), other = history.live
    lost = replace(
        history,
        asked=[Asked(A, TOKENS, "lost"), Asked(B, TOKENS)],
        live=[(name, events[:2]), other],
    )
    assert check(lost).violations == []
    assert check(replace(lost, trims=[Trim(B.tenant, 0, 3)])).rules >= {"lost_view"}
    assert check(replace(lost, live=[(name, events[1:2]), other])).rules >= {"index"}


def test_every_broken_rule_is_counted_as_a_breach_of_some_kind() -> None:
    """The summary leaves no rule out: one that it does not know is an error."""
    report = check(replace(good(), unfinished=[A], dead=[]))
    found = breaches(report)
    assert found["lost"] == 1
    assert found["dead_letters_wrong"] == 1
    assert found.total() == len(report.violations)
    report.add("new_rule", "", "")
    with pytest.raises(KeyError):
        breaches(report)
    assert breaches(Report()) == dict.fromkeys(BREACHES, 0)
