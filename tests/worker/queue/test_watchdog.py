"""The watchdog: a silence that nothing explains is told, everything else is not."""

from __future__ import annotations

from aril.worker.job import Partition
from aril.worker.queue.watchdog import Progress, Watchdog

JOBS = Partition("jobs", 0)


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
