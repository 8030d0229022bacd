"""What a worker measures of its partitions: smoothed, kept across rebalances, bounded."""

from __future__ import annotations

import pytest

from aril.worker.job import Partition
from aril.worker.placement.load_meter import SMOOTH_SECONDS, WARM_SECONDS, LoadMeter, Sample
from aril.worker.placement.load_report import MAX_PARTITION_ADAPTERS, mark_of

ONE, TWO = Partition("jobs", 1), Partition("jobs", 2)


def load(meter: LoadMeter, source: Partition, now: float) -> float | None:
    """Return what is known of a partition's load."""
    return meter.loads(now)[source].rows


def test_a_new_partition_is_not_known_before_its_records_were_read() -> None:
    """What is there to do shows only after the first polls."""
    meter = LoadMeter(slots=8)
    meter.assigned({ONE: None}, now=100)
    meter.observe(Sample({ONE: 0}, []), now=101)
    assert load(meter, ONE, 101) is None
    meter.observe(Sample({ONE: 8}, []), now=102)
    assert load(meter, ONE, 100 + WARM_SECONDS) == pytest.approx(8 * 0.095, rel=0.01)


def test_a_partition_that_was_another_workers_begins_with_its_load() -> None:
    """The leader passes on what the last owner told."""
    meter = LoadMeter(slots=8)
    meter.assigned({ONE: 6.0}, now=100)
    assert load(meter, ONE, 100) == 6.0


def test_loads_follow_what_lasts_and_not_a_burst() -> None:
    """After SMOOTH_SECONDS two thirds of a change are seen, after one second a tenth."""
    meter = LoadMeter(slots=8)
    meter.assigned({ONE: 0.0}, now=0)
    seen = []
    for second in range(1, 61):
        meter.observe(Sample({ONE: 10}, []), now=second)
        seen.append(load(meter, ONE, second))
    assert seen[0] == pytest.approx(0.95, abs=0.01)
    assert seen[int(SMOOTH_SECONDS) - 1] == pytest.approx(6.32, abs=0.01)
    assert seen[-1] == pytest.approx(10, abs=0.05)


def test_smoothing_does_not_depend_on_how_often_is_looked() -> None:
    """A late event loop measures the same."""
    often, rarely = LoadMeter(slots=8), LoadMeter(slots=8)
    for meter, step in ((often, 1), (rarely, 5)):
        meter.assigned({ONE: 0.0}, now=0)
        for second in range(step, 21, step):
            meter.observe(Sample({ONE: 10}, []), now=second)
    assert load(often, ONE, 20) == pytest.approx(load(rarely, ONE, 20))


def test_what_is_held_on_keeps_its_measure_through_a_rebalance() -> None:
    """In a rebalance a partition is not held for a moment; that is not "nothing to do"."""
    meter = LoadMeter(slots=8)
    meter.assigned({ONE: 5.0, TWO: 3.0}, now=0)
    meter.observe(Sample({}, []), now=1)
    meter.assigned({ONE: 99.0}, now=2)
    assert {each: load.rows for each, load in meter.loads(2).items()} == {ONE: 5.0}


def test_adapters_are_the_last_ones_that_ran_and_no_more_than_fit() -> None:
    """As many as slots for the worker, a handful for each partition; by their marks."""
    meter = LoadMeter(slots=6)
    meter.assigned({ONE: 0.0, TWO: 0.0}, now=0)
    for number in range(10):
        meter.observe(Sample({}, [(ONE, f"digest-{number}")]), now=number)
    meter.observe(Sample({}, [(TWO, "digest-5"), (Partition("lost", 0), "other")]), now=10)
    wanted = [mark_of(f"digest-{number}") for number in (6, 7, 8, 9, 5)]
    assert meter.adapters == (*wanted, mark_of("other"))
    assert meter.loads(10)[ONE].adapters == tuple(wanted[:4])
    assert meter.loads(10)[TWO].adapters == (mark_of("digest-5"),)
    assert len(meter.loads(10)[ONE].adapters) == MAX_PARTITION_ADAPTERS
