"""Simulate what consolidation saves and costs over a day, beside Punica's rule and the default.

    python -m benchmarks.consolidation    # writes consolidation.csv

A simulation, not a measurement of GPUs: what is modelled stands in `benchmarks/fleet.py`. A fleet
serves a day whose load rises from a tenth to its peak and falls again, with a burst of one tenant
every hour; tenants' shares fall off by rank.

    spread          the default assignor, with the whole fleet up
    consolidate     ARIL_ASSIGNOR=consolidate, with that many ARIL_REBALANCE_SECONDS
    Punica's rule   places each request by itself, which partitions cannot: the lower bound

GPU-hours count who holds partitions, with Punica's rule who runs anything.
"""

from __future__ import annotations

import functools
import itertools
import math
import random
import statistics
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from aril.worker.job import Partition
from benchmarks.fleet import STEP_SECONDS, Fleet, Job, Outcome, Size
from benchmarks.fleet_rules import Consolidate, Punica, Spread
from benchmarks.record import Row, keep

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.fleet import Rule

QUESTION = "consolidation"
DAYS: Final = 3  # seeds
SHARED, EACH = "one topic", "a topic for each tenant"
PERIODS: Final = (60, 300)  # ARIL_REBALANCE_SECONDS
GPU: Final = Size(rows=32, slots=32, kv_tokens=24_576)
SMALL: Final = Size(rows=16, slots=16, kv_tokens=12_288)


@dataclass(frozen=True)
class Day:
    """What comes in a day, and the fleet that it comes to."""

    seed: int
    layout: str = SHARED
    size: Size = GPU
    gpus: int = 8
    seconds: float = 86_400.0
    peak: float = 4.5  # of the GPUs busy, at the day's height
    low: float = 0.1  # of that at night
    burst: float = 0.75  # GPUs that one tenant keeps busy beside
    burst_seconds: float = 300.0
    burst_every: float = 3_600.0
    tenants: int = 40
    prompt: float = 200.0  # tokens, the mean
    tokens: float = 400.0  # to be made, the mean

    @property
    def partitions(self) -> list[Partition]:
        """The partitions of the jobs."""
        topics = {"jobs": 64} if self.layout == SHARED else dict.fromkeys(self._topics, 4)
        return [Partition(topic, number) for topic in topics for number in range(topics[topic])]

    @property
    def _topics(self) -> list[str]:
        return [f"jobs.{tenant:02}" for tenant in range(self.tenants)]

    def jobs(self) -> Iterator[Job]:
        """Generate the day's jobs as they come: by the hour, Poisson, with bursts."""
        chance = random.Random(self.seed)
        rate = self.size.rows / (self.tokens * STEP_SECONDS)  # jobs a second that fill a GPU
        most = self.peak + self.burst
        weights = list(itertools.accumulate(1 / (rank + 1) for rank in range(self.tenants)))
        tenants = range(self.tenants)
        bursts = [chance.choice(tenants) for _ in range(math.ceil(self.seconds / self.burst_every))]
        now = 0.0
        while (now := now + chance.expovariate(most * rate)) < self.seconds:
            wave = (1 - math.cos(2 * math.pi * now / self.seconds)) / 2
            usual = self.peak * (self.low + (1 - self.low) * wave)
            hour, within = divmod(now, self.burst_every)
            drawn = chance.random() * most
            if drawn < usual:
                tenant = chance.choices(tenants, cum_weights=weights)[0]
            elif drawn < usual + self.burst and within < self.burst_seconds:
                tenant = bursts[int(hour)]
            else:
                continue
            yield Job(
                came=now,
                source=self._partition(tenant, chance),
                adapter=f"adapter-{tenant:02}",
                prompt=1 + int(min(4 * self.prompt, chance.expovariate(1 / self.prompt))),
                tokens=1 + int(min(4 * self.tokens, chance.expovariate(1 / self.tokens))),
            )

    def _partition(self, tenant: int, chance: random.Random) -> Partition:
        if self.layout == SHARED:
            return Partition("jobs", chance.randrange(64))
        return Partition(self._topics[tenant], chance.randrange(4))


def simulate(day: Day, rule: Rule) -> Outcome:
    """Serve one day by one rule."""
    return Fleet(day.gpus, day.size, rule).run(day.jobs(), day.seconds)


def rows_of(provider: str, day: Day, outcomes: list[Outcome]) -> list[Row]:
    """Make the CSV's rows of one rule in one layout, over the days."""
    row = functools.partial(
        Row.of,
        question=QUESTION,
        provider=provider,
        x=f"{day.layout}, {day.size.rows} rows",
        config=f"simulated: {day.gpus} GPUs of {day.size.rows} rows, {day.seconds / 3_600:.0f} h, "
        f"{day.low * day.peak:.2f} to {day.peak} GPUs busy, bursts of {day.burst}; "
        f"{day.tenants} tenants, {len(day.partitions)} partitions, {STEP_SECONDS} s a step",
    )
    percentiles = [statistics.quantiles(each.first_tokens, n=1_000) for each in outcomes]
    figures: dict[tuple[str, str], list[float]] = {
        ("GPU-hours", "h"): [each.gpu_seconds / 3_600 for each in outcomes],
        ("first token, p50", "s"): [each[499] for each in percentiles],
        ("first token, p99", "s"): [each[989] for each in percentiles],
        ("first token, p99.9", "s"): [each[998] for each in percentiles],
        ("adapter loads", "1"): [each.adapter_loads for each in outcomes],
        ("rebalances", "1"): [each.rebalances for each in outcomes],
        ("streams handed over", "1"): [each.handed_over for each in outcomes],
        ("jobs", "1"): [len(each.first_tokens) for each in outcomes],
    }
    return [row(found, metric=metric, unit=unit) for (metric, unit), found in figures.items()]


def rules(day: Day) -> Iterator[tuple[str, Day, Rule]]:
    """Name what is compared, each with its fleet."""
    yield "spread", day, Spread(day.partitions)
    fewer = replace(day, gpus=6)
    yield "spread over 6", fewer, Spread(day.partitions)
    for seconds in PERIODS:
        yield f"consolidate, {seconds} s", day, Consolidate(day.partitions, seconds)
    yield "Punica's rule", day, Punica()


def run_all() -> list[Row]:
    """Simulate all rules, in both layouts and with a smaller batch."""
    rows = []
    for layout, size in ((SHARED, GPU), (EACH, GPU), (SHARED, SMALL)):
        days: dict[str, tuple[Day, list[Outcome]]] = {}
        for seed in range(DAYS):
            for provider, day, rule in rules(Day(seed, layout, size)):
                days.setdefault(provider, (day, []))[1].append(simulate(day, rule))
        for provider, (day, outcomes) in days.items():
            rows += rows_of(provider, day, outcomes)
    return rows


if __name__ == "__main__":
    keep(QUESTION, run_all())
