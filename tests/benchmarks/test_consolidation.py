"""The simulated fleet: small days whose outcome is known, and what holds of any day."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from aril.worker.job import Partition
from benchmarks.consolidation import EACH, SHARED, Day, rows_of, rules, simulate
from benchmarks.fleet import LOAD_SECONDS, STEP_SECONDS, Fleet, Job, Outcome, Size
from benchmarks.fleet_rules import Consolidate, Punica, Spread

if TYPE_CHECKING:
    from benchmarks.fleet import Gpu

JOBS = [Partition("jobs", number) for number in range(4)]


def job(came: float, *, tokens: int = 100, adapter: str = "a", partition: int = 0) -> Job:
    """Return a job with a prompt of one step."""
    return Job(came, JOBS[partition], adapter, prompt=10, tokens=tokens)


def serve(*jobs: Job, gpus: int = 1, size: Size | None = None) -> Outcome:
    """Serve jobs by the partitions' rule and return what came out."""
    fleet = Fleet(gpus, size or Size(rows=1), Spread(JOBS))
    return fleet.run(jobs, jobs[-1].came)


def test_the_second_of_two_jobs_waits_for_the_only_row() -> None:
    """First token: load and one step; the next job begins when the first has all its tokens."""
    first, second = serve(job(1, tokens=100), job(2)).first_tokens
    assert first == pytest.approx(LOAD_SECONDS + STEP_SECONDS)
    ends = 1 + LOAD_SECONDS + 100 * STEP_SECONDS
    assert second == pytest.approx(ends + STEP_SECONDS - 2)


def test_adapters_are_loaded_once_until_their_slot_is_taken() -> None:
    """Two slots: the one used longest ago goes."""
    names = ["a", "b", "a", "c", "a", "b"]
    jobs = [job(100 * number, adapter=name) for number, name in enumerate(names, 1)]
    assert serve(*jobs, size=Size(rows=1, slots=2)).adapter_loads == 4


def test_what_the_cache_cannot_hold_is_taken_from_the_newest() -> None:
    """It goes on when there is room again, behind what it had made, and is served once."""
    size = Size(rows=2, kv_tokens=150)
    older, newer = job(1, tokens=120), job(2, tokens=120)
    outcome = serve(older, newer, size=size)
    assert outcome.evicted == 1
    assert (older.made, older.run) == (0, 1)
    assert 0 < newer.made < 120
    assert len(outcome.first_tokens) == 2


def test_punicas_rule_fills_the_fullest_gpu_first() -> None:
    """A second GPU is used only once the first has no row left."""
    jobs = [job(1 + number / 10) for number in range(5)]
    fleet = Fleet(3, Size(rows=4), Punica())
    seen: list[list[int]] = []
    fleet.at(2.0, lambda: seen.append([len(gpu.running) for gpu in fleet.gpus]))
    fleet.run(jobs, 10)
    assert seen == [[0, 1, 4]]


class Watched(Consolidate):
    """Sees that limits hold each second, and when it was rebalanced."""

    def __init__(self, partitions: list[Partition], seconds: float) -> None:
        super().__init__(partitions, seconds)
        self.asked: list[float] = []

    def tick(self, fleet: Fleet) -> int:
        """Look first."""
        before = fleet.outcome.rebalances
        for gpu in fleet.gpus:
            self.look(gpu, fleet.now)
        opened = super().tick(fleet)
        if fleet.outcome.rebalances > before:
            self.asked.append(fleet.now)
        return opened

    def look(self, gpu: Gpu, now: float) -> None:
        """No GPU runs more than it holds, or what is not of its partitions."""
        assert len(gpu.running) <= gpu.size.rows
        assert gpu.kv_used(now) <= gpu.size.kv_tokens + gpu.size.rows
        assert len(gpu.slots) <= gpu.size.slots
        assert {each.adapter for each in gpu.running} <= set(gpu.slots)
        assert all(self.owner[each.source] is gpu for each in gpu.running)


@pytest.mark.parametrize("layout", [SHARED, EACH])
def test_limits_hold_through_a_day_of_rebalances(layout: str) -> None:
    """Streams are handed over, all are served, and rebalances keep their distance."""
    day = Day(1, layout, size=Size(rows=16, slots=16, kv_tokens=8_192), seconds=3_600)
    rule = Watched(day.partitions, 60)
    outcome = simulate(day, rule)
    assert outcome.handed_over > 0
    assert outcome.rebalances == len(rule.asked) > 2
    assert all(b - a >= 60 for a, b in itertools.pairwise(rule.asked))
    again = simulate(day, Consolidate(day.partitions, 60))
    assert again == outcome


def test_the_rules_are_in_the_order_that_they_should_be() -> None:
    """Punica's rule holds the fewest GPUs, consolidation more, the whole fleet the most."""
    day = Day(1, SHARED, size=Size(rows=16, slots=16, kv_tokens=12_288), seconds=3_600)
    outcomes = {provider: simulate(fleet, rule) for provider, fleet, rule in rules(day)}
    hours = [
        outcomes[each].gpu_seconds / 3_600
        for each in ("Punica's rule", "consolidate, 60 s", "spread")
    ]
    assert hours == sorted(hours)
    assert hours[2] == pytest.approx(8, abs=0.01)
    assert hours[1] < 7
    assert len({len(each.first_tokens) for each in outcomes.values()}) == 1
    found = {row.metric: row.p50 for row in rows_of("spread", day, [outcomes["spread"]])}
    assert found["GPU-hours"] == hours[2]
    assert found["jobs"] == len(outcomes["spread"].first_tokens)
