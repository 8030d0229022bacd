"""The fencing rule by the real objects, in every interleaving up to a bound; and its tripwires."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest

from aril.schemas import ClaimRecord, Epoch, VisibleStream
from aril.worker.queue.parting import Parting
from aril.worker.takeover.rule import TakeOver, Verdict
from tests.support.explorer import Explorer
from tests.support.explorer_state import Bounds, Flaws, Remedies, Start

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aril.schemas import ReplyRecord
    from aril.worker.queue.assignment import Membership, PartitionState

SMALL = Bounds(generations=2, processes=2, faults=1)
BACK = Bounds(generations=3, processes=2, faults=0)  # the partition comes back to its first owner
USUAL = Bounds(generations=3, processes=2, faults=1)
THREE = Bounds(generations=3, processes=3, faults=1)

TAKEN = Start()
FRESH = Start(fresh=1)
UNREAD = Start(fresh=1, unread=True)  # and nobody has looked at it yet
BOTH_UNREAD = Start(fresh=2, unread=True)
BOTH_FRESH = Start(fresh=2)  # sent after the last assignment: a zombie fetches the job, too
RESTARTED = Start(old_epoch=(9, 1))  # the group was deleted, its generations began again
FROM_ZERO = Start(first_generation=0)  # as the embedded broker counts
TRUNCATED = Start(truncated=True)
# Restarted below an epoch that the new generations reach: the bases of two owners can differ.
REACHED = Start(old_epoch=(2, 1))
EQUAL = Start(old_epoch=(1, 1))
ALONE = Bounds(generations=1, processes=1, faults=1)
# The same where partitions move one by one, KIP-848.
EPOCHS = Bounds(generations=3, processes=2, faults=0, one_by_one=True)
EPOCHS_SMALL = Bounds(generations=2, processes=2, faults=1, one_by_one=True)

VARIANTS = {
    "taken_over": (TAKEN, USUAL),
    "taken_over_by_three": (TAKEN, replace(THREE, faults=0)),
    "two_faults": (TAKEN, replace(SMALL, faults=2)),
    "fresh_to_the_first": (FRESH, USUAL),
    "fresh_to_both": (BOTH_FRESH, USUAL),
    "fresh_and_unread": (UNREAD, USUAL),
    "fresh_to_both_and_unread": (BOTH_UNREAD, SMALL),
    "generations_restarted": (RESTARTED, SMALL),
    "generations_restarted_and_back": (RESTARTED, BACK),
    "restarted_at_an_equal_epoch": (EQUAL, ALONE),
    "generations_from_zero": (FROM_ZERO, BACK),
    "start_of_the_answer_deleted": (TRUNCATED, BACK),
    "restarted_and_start_deleted": (replace(RESTARTED, truncated=True), SMALL),
    "restarted_from_zero": (replace(RESTARTED, first_generation=0), ALONE),
    "restarted_below_reachable_epochs": (REACHED, BACK),
    "restarted_at_reachable_epochs": (EQUAL, SMALL),
    "one_by_one_taken_over": (TAKEN, EPOCHS),
    "one_by_one_with_a_fault": (TAKEN, EPOCHS_SMALL),
    "one_by_one_fresh": (FRESH, EPOCHS),
    "one_by_one_fresh_and_unread": (UNREAD, EPOCHS),
    "one_by_one_fresh_to_both": (BOTH_FRESH, EPOCHS_SMALL),
    "one_by_one_restarted": (RESTARTED, replace(EPOCHS, generations=2)),
}
WIDER = {
    "taken_over": (TAKEN, replace(THREE, faults=2)),
    "taken_over_by_four_assignments": (TAKEN, replace(THREE, generations=4)),
    "fresh_to_the_first": (FRESH, replace(THREE, faults=2)),
    "fresh_to_both": (BOTH_FRESH, replace(THREE, faults=2)),
    "generations_restarted": (RESTARTED, USUAL),
    "restarted_below_reachable_epochs": (REACHED, USUAL),
    "restarted_at_reachable_epochs": (EQUAL, USUAL),
    "one_by_one_taken_over": (TAKEN, replace(EPOCHS, faults=1)),
    "one_by_one_by_three": (TAKEN, replace(EPOCHS, processes=3)),
    "one_by_one_fresh": (FRESH, replace(EPOCHS, faults=1)),
    "one_by_one_fresh_and_unread": (UNREAD, replace(EPOCHS, generations=4)),
    "one_by_one_restarted": (RESTARTED, EPOCHS),
    "one_by_one_below_reachable_epochs": (REACHED, EPOCHS),
}


def run(
    start: Start,
    bounds: Bounds,
    flaws: Flaws | None = None,
    remedies: Remedies | None = None,
) -> str | None:
    """Explore, say what was seen, and return the violation."""
    explored = Explorer(bounds, start, flaws, remedies).run()
    print(bounds, start, explored, sep="\n")
    if explored.resets and not (start.truncated or start.fresh > 1):
        return explored.violation or "tokens were withdrawn"
    return explored.violation


@cache
def run_real(start: Start, bounds: Bounds) -> str | None:
    """Explore what is not patched; once, though many tests ask."""
    return run(start, bounds)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_rule_holds(variant: str) -> None:
    """No mixed or continued answer, no lost job, and the last owner can always finish."""
    assert run_real(*VARIANTS[variant]) is None


@pytest.mark.slow
@pytest.mark.parametrize("variant", WIDER)
def test_the_rule_holds_further_out(variant: str) -> None:
    """The same with more owners and more faults."""
    assert run(*WIDER[variant]) is None


def test_tokens_are_withdrawn_where_a_job_is_fresh_to_two() -> None:
    """The one reset that the rule allows is among what is explored."""
    assert Explorer(SMALL, BOTH_FRESH).run().resets == 1


# --- where the rule does not reach


def test_a_live_zombie_of_a_deleted_group_beside_a_fresh_job_is_the_gap() -> None:
    """Its higher epoch hides the fresh owner's answer; to look for one's terminal would tell."""
    start, bounds = replace(RESTARTED, fresh=1), replace(SMALL, faults=0)
    assert run(start, bounds) is not None
    assert run(start, bounds, remedies=Remedies(terminal_read_back=True)) is None


# --- planted faults


def same_attempt(epoch: Epoch) -> Epoch:
    """Go on under the attempt whose append failed."""
    return epoch


REAL_FEED = VisibleStream.feed


def begin_anywhere(stream: VisibleStream, record: ReplyRecord) -> Any:
    """Let any index begin an epoch."""
    if not stream.finished and record.epoch > stream.epoch and getattr(record, "index", None):
        stream.epoch, stream.writer = record.epoch, record.worker
    return REAL_FEED(stream, record)


def any_writer(stream: VisibleStream, record: ReplyRecord) -> Any:
    """Let every worker write under an epoch that another one began."""
    if record.epoch == stream.epoch and stream.writer is not None:
        record = replace(record, worker=stream.writer)
    return REAL_FEED(stream, record)


def any_end(stream: VisibleStream, record: ReplyRecord) -> Any:
    """Let records count behind a terminal."""
    stream.terminal = None
    return REAL_FEED(stream, record)


def withdraw_by_claim(stream: VisibleStream, record: ReplyRecord) -> Any:
    """Let a claim withdraw what is visible."""
    if isinstance(record, ClaimRecord) and record.epoch > stream.epoch and not stream.finished:
        stream._ids.clear()
    return REAL_FEED(stream, record)


def epoch_is_enough(takeover: TakeOver, **_: bool) -> Verdict:
    """Take another writer's equal epoch for one's own."""
    stream = takeover.history.stream
    if stream.finished:
        return Verdict.ANSWERED
    return Verdict.OURS if stream.epoch == takeover.epoch else Verdict.CONTESTED


def never_contested(takeover: TakeOver, **_: bool) -> Verdict:
    """Go on although somebody stands above."""
    return Verdict.ANSWERED if takeover.history.stream.finished else Verdict.OURS


def next_attempt_only(takeover: TakeOver, _: int) -> None:
    """Answer restarted generations by an attempt above what was read."""
    generation, attempt = takeover.history.stream.epoch
    takeover.epoch = Epoch(generation, attempt + 1)


def unread_for_ever(state: PartitionState) -> int:
    """Take what was read for what was not."""
    return state.fresh_from


def at_any_time(_: Parting, __: int) -> bool:
    """Believe what an owner said before others had the partition."""
    return True


def all_not_begun(state: PartitionState) -> Parting:
    """Say of every unfinished job that nobody has begun it."""
    return Parting(state.membership.generation, 0)


def always(_: Membership, __: Membership) -> bool:
    """Keep what runs, whatever happened meanwhile."""
    return True


@dataclass(frozen=True, slots=True)
class Mutant:
    """A fault, and where it shows."""

    start: Start
    bounds: Bounds
    flaws: Flaws | None = None
    patches: Mapping[str, Callable[..., Any] | property] = field(default_factory=dict)


MUTANTS = {
    "same_attempt_after_a_failure": Mutant(
        TAKEN, SMALL, patches={"aril.worker.takeover.rule.next_attempt": same_attempt}
    ),
    "any_index_begins_an_epoch": Mutant(
        BOTH_FRESH, SMALL, patches={"aril.schemas.VisibleStream.feed": begin_anywhere}
    ),
    "any_worker_writes_an_epoch": Mutant(
        EQUAL,
        ALONE,
        patches={
            "aril.schemas.VisibleStream.feed": any_writer,
            "aril.worker.takeover.rule.TakeOver.verdict": epoch_is_enough,
        },
    ),
    "records_count_behind_a_terminal": Mutant(
        TAKEN, SMALL, patches={"aril.schemas.VisibleStream.feed": any_end}
    ),
    "a_claim_withdraws": Mutant(
        TAKEN, SMALL, patches={"aril.schemas.VisibleStream.feed": withdraw_by_claim}
    ),
    "equal_epoch_of_another_taken_for_ours": Mutant(
        EQUAL, ALONE, patches={"aril.worker.takeover.rule.TakeOver.verdict": epoch_is_enough}
    ),
    "contest_ignored": Mutant(
        RESTARTED, SMALL, patches={"aril.worker.takeover.rule.TakeOver.verdict": never_contested}
    ),
    "restart_answered_by_an_attempt": Mutant(
        RESTARTED, SMALL, patches={"aril.worker.takeover.rule.TakeOver.proved": next_attempt_only}
    ),
    "base_not_committed": Mutant(REACHED, BACK, Flaws(base_forgotten=True)),
    "kept_across_a_missed_generation": Mutant(
        TAKEN, BACK, patches={"aril.worker.queue.assignment.Membership.follows": always}
    ),
    "fresh_across_a_missed_generation": Mutant(
        UNREAD, BACK, patches={"aril.worker.queue.assignment.Membership.follows": always}
    ),
    "fresh_again_though_it_was_read": Mutant(
        FRESH,
        BACK,
        patches={
            "aril.worker.queue.assignment.PartitionState.unread_from": property(unread_for_ever)
        },
    ),
    "believed_after_others_had_it": Mutant(
        FRESH, BACK, patches={"aril.worker.queue.parting.Parting.holds_in": at_any_time}
    ),
    "begun_and_said_not_to_be": Mutant(
        FRESH,
        SMALL,
        patches={"aril.worker.queue.assignment.PartitionState._parting": all_not_begun},
    ),
    "begun_after_parting": Mutant(FRESH, SMALL, Flaws(begun_after_parting=True)),
    "commit_before_the_terminal_is_acked": Mutant(TAKEN, SMALL, Flaws(early_commit=True)),
    "commit_sent_again_under_a_newer_generation": Mutant(TAKEN, SMALL, Flaws(resent_commit=True)),
    "stale_completion_committed": Mutant(TAKEN, BACK, Flaws(stale_completion=True)),
    "stale_state_swallows_a_redelivery": Mutant(TAKEN, SMALL, Flaws(stale_state=True)),
    "one_by_one_commit_after_revoke": Mutant(TAKEN, EPOCHS, Flaws(commit_after_revoke=True)),
    "one_by_one_claims_in_the_epoch_of_joining": Mutant(
        TAKEN, EPOCHS, Flaws(epoch_of_joining=True)
    ),
    "one_by_one_claims_twice_in_an_epoch": Mutant(TAKEN, EPOCHS, Flaws(same_epoch_again=True)),
    "one_by_one_believed_across_a_gap": Mutant(
        FRESH, EPOCHS, patches={"aril.worker.queue.parting.Parting.holds_in": at_any_time}
    ),
    "one_by_one_parted_in_the_epoch_to_come": Mutant(UNREAD, EPOCHS, Flaws(parted_in_target=True)),
    "one_by_one_begun_after_parting": Mutant(FRESH, EPOCHS, Flaws(begun_after_parting=True)),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_planted_fault_is_caught(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within bounds in which the real code holds, each known mistake shows."""
    planted = MUTANTS[mutant]
    assert run_real(planted.start, planted.bounds) is None
    for target, fault in planted.patches.items():
        monkeypatch.setattr(target, fault)
    assert run(planted.start, planted.bounds, planted.flaws) is not None
