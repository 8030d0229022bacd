"""The ledger: what is committed is finished, and what was finished is not work again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from aril.worker.job import Partition
from aril.worker.queue.assignment import Membership, PartitionState
from aril.worker.queue.commit_text import base_of, done_list_of
from aril.worker.queue.done_list import FULL_SHARE, METADATA_BYTES, decode, encode
from aril.worker.queue.ledger import Checkpoint, Ledger

if TYPE_CHECKING:
    from collections.abc import Iterable


def test_the_position_stops_at_the_first_open_offset() -> None:
    """Finishing out of order commits nothing until the gap closes."""
    ledger = Ledger(7)
    for offset in (7, 8, 9):
        assert ledger.read(offset)
    ledger.finish(8)
    ledger.finish(9)
    assert ledger.position == 7
    ledger.finish(7)
    assert ledger.position == 10
    assert ledger.open == 0


def test_a_redelivered_offset_is_not_read_twice() -> None:
    """What was read in this assignment is not work a second time."""
    ledger = Ledger(0)
    assert ledger.read(3)
    assert not ledger.read(3)
    assert not ledger.read(2)
    assert ledger.next_offset == 4


def test_an_offset_is_finished_once() -> None:
    """A second finish is a programmer's error, not a silent no-op."""
    ledger = Ledger(0)
    ledger.read(0)
    ledger.finish(0)
    with pytest.raises(ValueError, match="offset 0 is not open"):
        ledger.finish(0)


@given(st.sets(st.integers(0, 60), max_size=30), st.randoms(use_true_random=False), st.integers(0))
def test_committed_means_finished(offsets: set[int], random: object, start: int) -> None:
    """At every moment all read offsets below the position are finished, and it never falls."""
    ledger = Ledger(start)
    to_read = sorted(start + offset for offset in offsets)
    order = list(to_read)
    random.shuffle(order)  # type: ignore[attr-defined] # hypothesis' Random
    open_now: set[int] = set()
    position = ledger.position
    for offset in to_read:
        assert ledger.read(offset)
        open_now.add(offset)
    for offset in order:
        ledger.finish(offset)
        open_now.discard(offset)
        assert ledger.position >= position
        position = ledger.position
        assert all(each >= position for each in open_now)
        assert not open_now or position == min(open_now)
    assert ledger.position == ledger.next_offset


class AgainstSets(RuleBasedStateMachine):
    """The ledger beside a model that keeps every offset in plain sets."""

    @initialize(start=st.integers(0, 50), runs=st.sets(st.integers(0, 40), max_size=20))
    def begin(self, start: int, runs: set[int]) -> None:
        """Start with what an earlier owner finished, as loose offsets in any order."""
        self.done = {start + offset for offset in runs}
        self.ledger = Ledger(start, [range(each, each + 1) for each in self.done])
        self.done |= set(range(start))
        self.open: set[int] = set()
        self.next = start

    @rule(skipped=st.integers(0, 4) | st.just(0))
    def read(self, skipped: int) -> None:
        """Read the next record that the log has."""
        offset = self.next + skipped
        assert self.ledger.is_done(offset) == (offset in self.done)
        assert self.ledger.read(offset) == (offset not in self.done)
        self.done |= set(range(self.next, offset))
        self.next = offset + 1
        if offset not in self.done:
            self.open.add(offset)

    @rule(back=st.integers(1, 20))
    def read_again(self, back: int) -> None:
        """See a record a second time."""
        assert not self.ledger.read(max(self.next - back, -1))

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        """Finish any open offset; a second time is refused."""
        offset = data.draw(st.sampled_from(sorted(self.open)))
        self.ledger.finish(offset)
        self.open.remove(offset)
        self.done.add(offset)
        with pytest.raises(ValueError, match="is not open"):
            self.ledger.finish(offset)

    @rule()
    def restart(self) -> None:
        """Hand over to another owner, which knows what was committed and nothing else."""
        position, metadata = self.ledger.checkpoint()
        self.ledger = Ledger(position, decode(position, metadata))
        self.open.clear()
        self.next = position

    @invariant()
    def agrees(self) -> None:
        """Both say the same of position, list and text."""
        position = next(each for each in range(len(self.done) + 1) if each not in self.done)
        assert self.ledger.position == position
        assert self.ledger.next_offset == self.next
        assert self.ledger.open == len(self.open)
        beyond = [each for run in self.ledger.done_beyond for each in run]
        assert beyond == sorted(each for each in self.done if each > position)
        assert self.ledger.metadata() == encode(position, self.ledger.done_beyond)
        assert decode(position, self.ledger.metadata()) == tuple(self.ledger.done_beyond)


TestAgainstSets = AgainstSets.TestCase
TestAgainstSets.settings = settings(max_examples=60, stateful_step_count=40)


def out_of_order(offsets: Iterable[int], count: int, start: int = 0) -> Ledger:
    """Return a ledger that read ``count`` records and finished some of them."""
    ledger = Ledger(start)
    for offset in range(start, start + count):
        ledger.read(offset)
    for offset in offsets:
        ledger.finish(offset)
    return ledger


def test_long_runs_far_away_survive_a_restart() -> None:
    """Runs over 32,767 and large gaps are as good as small ones, and the text stays short."""
    ledger = out_of_order(range(1, 40_001), 40_002, start=0)
    assert ledger.read(10_000_000)
    assert ledger.read(10_000_001)
    ledger.finish(10_000_001)
    position, metadata = ledger.checkpoint()
    assert (position, len(metadata)) == (0, 24)
    heir = Ledger(position, decode(position, metadata))
    assert [heir.read(offset) for offset in (0, 1, 40_000, 40_001)] == [True, False, False, True]
    assert [heir.is_done(10_000_000 + more) for more in (-1, 0, 1, 2)] == [True, False, True, False]


def test_the_position_jumps_over_what_was_finished_beyond() -> None:
    """Once the last open offset is done, the position is behind the whole run, read or not."""
    ledger = Ledger(5, [range(6, 9), range(10, 20)])
    assert ledger.read(5)
    ledger.finish(5)
    assert (ledger.position, ledger.next_offset) == (9, 6)
    assert [ledger.read(offset) for offset in range(6, 11)] == [False, False, False, True, False]
    ledger.finish(9)
    assert ledger.checkpoint() == (20, "")


def crowd(ledger: Ledger) -> int:
    """Finish every second offset until the ledger is crowded."""
    for offset in range(ledger.position + 1, ledger.next_offset, 2):
        ledger.finish(offset)
        if ledger.crowded:
            return offset
    raise AssertionError


def test_a_ledger_is_crowded_at_its_share_and_until_the_oldest_are_done() -> None:
    """Three quarters of the text, not sooner; closing gaps makes room again."""
    ledger = out_of_order([], 6_000)
    last = crowd(ledger)
    assert 0 <= len(ledger.metadata()) - FULL_SHARE * METADATA_BYTES < 4
    for offset in range(0, last // 4, 2):
        ledger.finish(offset)
    assert not ledger.crowded


def test_a_list_that_does_not_fit_is_cut_at_its_far_end() -> None:
    """More is finished than the text can say: the oldest of it is kept, the rest comes again."""
    ledger = out_of_order(range(1, 6_000, 2), 6_000)
    text = ledger.metadata()
    kept = decode(0, text)
    assert len(text) == METADATA_BYTES
    assert list(kept) == ledger.done_beyond[: len(kept)]
    assert len(kept) < len(ledger.done_beyond)


def test_a_full_list_that_was_taken_over_holds_nothing_up() -> None:
    """With nothing in hand, waiting would make no room: the new owner reads on."""
    before = out_of_order([], 6_000)
    crowd(before)
    heir = Ledger(before.position, decode(before.position, before.metadata()))
    assert not heir.crowded
    assert heir.read(0)
    assert heir.crowded
    heir.finish(0)
    assert not heir.crowded


def state_of(committed: Checkpoint | None, end_offset: int = 1_000) -> PartitionState:
    """Return a partition that was won."""
    return PartitionState(Partition("jobs", 0), Membership(1, 1, "m"), end_offset, committed)


def test_a_partition_commits_when_position_or_list_changed() -> None:
    """Nothing new, no commit; a finish beyond the position is news, and so is a damaged text."""
    state = state_of(Checkpoint(10, ""))
    assert state.to_commit() is None
    assert [state.read(offset) for offset in (10, 11, 12)] == [True] * 3
    assert state.to_commit() is None
    state.finish_offset(11)
    grown = state.to_commit()
    assert grown == (10, encode(10, [range(11, 12)]))
    state.committed = grown
    assert state.to_commit() is None
    state.finish_offset(10)
    assert state.to_commit() == (12, "")
    assert state_of(Checkpoint(10, "damaged")).to_commit() == (10, "")


def test_finished_records_are_not_delivered_again() -> None:
    """The partition skips what the list names, and goes on as if it had been read and finished."""
    state = state_of(Checkpoint(10, encode(10, [range(11, 13)])))
    assert [state.read(offset) for offset in range(10, 15)] == [True, False, False, True, True]
    state.finish_offset(10)
    assert state.position == 13


def test_a_log_that_was_set_back_voids_the_list() -> None:
    """Read from elsewhere than the committed position, records are new, whatever their offsets."""
    state = state_of(Checkpoint(10, encode(10, [range(11, 13)])))
    assert [state.read(offset) for offset in range(3, 14)] == [True] * 11
    assert state.position == 3
    assert state.to_commit() == (3, "")


def test_a_log_that_starts_later_keeps_the_rest_of_the_list() -> None:
    """Retention took the oldest: they hold nothing up, and what is left of the list counts."""
    state = state_of(Checkpoint(10, encode(10, [range(11, 13), range(20, 30)])))
    assert [state.read(offset) for offset in (18, 19, 20, 30)] == [True, True, False, True]
    assert state.position == 18


def test_offsets_past_the_logs_end_are_not_believed() -> None:
    """A log that was cut gives those offsets to other jobs: they must be read."""
    committed = Checkpoint(10, encode(10, [range(11, 15), range(16, 18)]))
    state = state_of(committed, end_offset=13)
    assert [state.read(offset) for offset in range(10, 18)] == [True, False, False] + [True] * 5


def test_without_a_committed_position_the_first_record_begins() -> None:
    """Nothing known: the ledger begins where reading does."""
    state = state_of(None)
    assert (state.position, state.to_commit(), state.crowded) == (None, None, False)
    assert state.read(7)
    assert state.to_commit() == (7, "")


def test_the_base_of_epochs_is_committed_beside_the_list() -> None:
    """The next owner starts from it, and the list stands as it was."""
    state = state_of(Checkpoint(10, encode(10, [range(11, 13)])))
    state.base = 41
    told = state.to_commit()
    assert told is not None
    heir = state_of(told)
    assert (heir.base, heir.epoch_generation) == (41, 41 + heir.membership.generation)
    assert [heir.read(offset) for offset in (10, 11, 12)] == [True, False, False]
    raised = heir.checkpoint(50)
    assert raised is not None
    assert base_of(raised.metadata) == 50
    assert heir.base == 41  # until the broker has taken it


def test_a_base_beside_a_full_list_fits() -> None:
    """The list gives way: what it leaves out comes again."""
    state = state_of(Checkpoint(0, ""), end_offset=6_000)
    for offset in range(6_000):
        state.read(offset)
    for offset in range(1, 6_000, 2):
        state.finish_offset(offset)
    full = state.checkpoint(10**14)
    assert full is not None
    assert METADATA_BYTES - 30 < len(full.metadata) <= METADATA_BYTES
    assert len(done_list_of(full)) > 1_000


@pytest.mark.parametrize(
    "metadata", ["", ":", "x:", "-1:", "1e3:", "\u0664:", f"{2**60}:", "7", " 7:"]
)
def test_a_base_that_cannot_be_read_is_none(metadata: str) -> None:
    """Whatever stands there: 0 costs a proof, a wild number would cost every reader."""
    assert base_of(metadata) == 0
