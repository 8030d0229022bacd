"""The watchdog: a silence that nothing explains is told, everything else is not."""

from __future__ import annotations

from aril.worker.job import Partition
from aril.worker.queue.watchdog import Progress, Watchdog

JOBS, OTHERS = Partition("jobs", 0), Partition("jobs", 1)


def test_a_log_that_grows_behind_a_position_that_stands_is_told() -> None:
    """After the patience, and not before; each look counts from when it stood still."""
    dog = Watchdog(patience=60)
    assert dog.observe({JOBS: Progress(5, 9)}, now=0) == []
    assert dog.observe({JOBS: Progress(5, 12)}, now=59) == []
    assert dog.observe({JOBS: Progress(5, 20)}, now=60) == [JOBS]


def test_progress_however_slow_is_no_silence() -> None:
    """The clock begins again with every record."""
    dog = Watchdog(patience=60)
    for step in range(10):
        assert dog.observe({JOBS: Progress(step, 100)}, now=50.0 * step) == []


def test_nothing_to_read_is_no_silence() -> None:
    """A position at the end waits for jobs; the time before the next one does not count."""
    dog = Watchdog(patience=60)
    assert dog.observe({JOBS: Progress(9, 9)}, now=0) == []
    assert dog.observe({JOBS: Progress(9, 10)}, now=1_000) == []
    assert dog.observe({JOBS: Progress(9, 10)}, now=1_059) == []
    assert dog.observe({JOBS: Progress(9, 10)}, now=1_061) == [JOBS]


def test_a_partition_that_was_away_begins_anew() -> None:
    """Paused, or somebody else's for a while."""
    dog = Watchdog(patience=60)
    dog.observe({JOBS: Progress(5, 9)}, now=0)
    assert dog.observe({}, now=50) == []
    assert dog.observe({JOBS: Progress(5, 9)}, now=100) == []
    dog.forget()
    assert dog.observe({JOBS: Progress(5, 9)}, now=200) == []


def test_a_partition_waits_for_its_turn_while_others_are_read() -> None:
    """One of many behind a backlog is not silent yet; after ten times as long it is, for sure."""
    dog = Watchdog(patience=60)
    for look in range(40):
        seen = {JOBS: Progress(5, 9), OTHERS: Progress(look, 1_000)}
        assert dog.observe(seen, now=15.0 * look) == []
    assert dog.observe({JOBS: Progress(5, 9), OTHERS: Progress(40, 1_000)}, now=600) == [JOBS]


def test_all_that_stand_still_are_silent_once_nothing_has_come_for_so_long() -> None:
    """Whoever was read last gave the others time only until then."""
    dog = Watchdog(patience=60)
    assert dog.observe({JOBS: Progress(5, 9), OTHERS: Progress(5, 9)}, now=0) == []
    assert dog.observe({JOBS: Progress(5, 9), OTHERS: Progress(6, 9)}, now=30) == []
    assert dog.observe({JOBS: Progress(5, 9), OTHERS: Progress(6, 9)}, now=75) == []
    assert dog.observe({JOBS: Progress(5, 9), OTHERS: Progress(6, 9)}, now=90) == [JOBS, OTHERS]
