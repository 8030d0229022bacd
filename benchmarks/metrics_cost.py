"""Measure what counting costs the event loop, as a share of it at so many tokens a second.

    python -m benchmarks.metrics_cost    # writes metrics_cost.csv

CPU time of one thread, since that is the event loop's. What a worker tells its metrics is told
alone, by the functions that the worker calls: of a token, of a reply record, of a job on its whole
way, of a page that is scraped with every name taken. A round does each in turn, so that a machine
that changes its speed changes all of them. The share is the sum of a second's worth: the tokens,
a record each, the jobs that they make, a scrape every 15 s. What the engine counts is counted in
its own thread and read at a scrape, so a step costs the event loop nothing.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from prometheus_client import generate_latest

from aril.schemas import Epoch, Job, Sampling
from aril.worker.accounting import count_begun, count_move, count_tokens, ended
from aril.worker.engine.mixture import Mixture
from aril.worker.job import Entry, Partition, Record
from aril.worker.observe.engine_stats import EngineStats
from aril.worker.observe.metrics import Lag, Metrics
from aril.worker.observe.metrics.page import Collected
from aril.worker.observe.metrics.queue import MOST_PARTITIONS
from aril.worker.stages import Event, Stage
from benchmarks.cpu_time import MICROSECONDS, microseconds
from benchmarks.record import Row, keep
from benchmarks.turns import in_turns

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

QUESTION = "metrics_cost"
ROUNDS = 30
TOKENS_PER_SECOND = 3_000
JOB_TOKENS = (16, 128, 1_024)  # of an answer
SCRAPE_SECONDS = 15.0
TENANTS = 1_000  # more than have a name
ENDS = ("stop", "length", "invalid_job", "deadline_exceeded", "internal")

row = partial(
    Row.of,
    question=QUESTION,
    provider="aril",
    config=f"{TENANTS} tenants, of which 20 named, {MOST_PARTITIONS} partitions,"
    f" {TOKENS_PER_SECOND} tokens a second, CPU time of one thread; x: tokens of an answer",
)

# A job's way where nothing goes wrong.
WAY = (
    *(Event.ROUTED, Event.CHOSEN, Event.PREPARED, Event.SUBMITTED),
    *(Event.FINISHED, Event.WRITTEN, Event.SETTLED),
)


def entry_of(number: int, tokens: int) -> Entry:
    """Return a job as it is read."""
    name, tenant = f"j{number}", f"t{number % TENANTS}"
    job = Job(id=name, tenant=tenant, prompt="x" * 400, sampling=Sampling(max_tokens=tokens))
    now = time.time() * 1_000
    return Entry(
        key=number,
        record=Record(Partition("jobs", 0), number, int(now) - 500, b"", b"x" * 500, ()),
        tenant=tenant,
        job_id=name,
        job=job,
        digest=b"",
        generation=1,
        epoch=Epoch(1, 1),
        owned=True,
        deadline_ms=now + 86_400_000,
        reply_topic=f"replies.{tenant}",
        wanted_partition=None,
        prompt_ids=(1,) * 100,
        submitted_ms=now - 400,
    )


class Told:
    """A worker's metrics, and what it tells them."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        stats = EngineStats(kv_blocks=1_000, slots=8, in_slots=("d",) * 8, in_memory=("d",) * 100)
        self.metrics.engine.watch(lambda: stats)
        self.metrics.behind({("jobs", each): Lag(each, each) for each in range(MOST_PARTITIONS)})
        self._number = 0
        self._running = entry_of(0, 128)
        for number in range(3 * TENANTS):  # every name is taken, every end has a series
            self.job(end=ENDS[number % len(ENDS)])

    def token(self) -> None:
        """Tell of a token of a running job."""
        count_tokens(self._running, 1, time.time() * 1_000, self.metrics)

    def record(self) -> None:
        """Tell of a reply record."""
        self.metrics.tokens_per_record.observe(1)

    def job(self, end: str = "stop") -> None:
        """Tell of a job from its arrival to its end, its tokens left out."""
        self._number += 1
        entry = entry_of(self._number, 128)
        entry.adapter = Mixture((), ())
        for event in WAY:
            before = entry.stage
            entry.life.happen(event)
            count_move(entry, before, self.metrics)
            if entry.stage is Stage.RUNNING:
                count_begun(entry, self.metrics)
                self.metrics.adapters.begun(f"{entry.tenant}/adapter", "d")
        entry.first_token_ms, entry.last_token_ms = entry.submitted_ms, entry.submitted_ms + 300
        entry.told_tokens = 128
        entry.finish = "stop" if end == "stop" else "length"
        self.metrics.ended(ended(entry, time.time() * 1_000))

    def unseen_job(self) -> None:
        """Do what `job` does but for the metrics."""
        self._number += 1
        entry = entry_of(self._number, 128)
        entry.adapter = Mixture((), ())
        for event in WAY:
            entry.life.happen(event)

    def collect(self) -> Collected:
        """Read everything for a page, as a scrape does on the event loop."""
        return Collected(self.metrics.registry)

    def encode(self) -> bytes:
        """Make the page, which is done in another thread."""
        return generate_latest(self.collect())


def shares(costs: Mapping[str, float], tokens: int) -> float:
    """Return the share of the event loop's time, in percent, where an answer has so many tokens."""
    a_second = TOKENS_PER_SECOND * (costs["token"] + costs["record"])
    a_second += TOKENS_PER_SECOND / tokens * (costs["job"] - costs["unseen_job"])
    a_second += costs["collect"] / SCRAPE_SECONDS
    return a_second / MICROSECONDS * 100


def measure() -> list[Row]:
    """Measure each thing alone, then what a second of them comes to."""
    told = Told()
    works: dict[str, Callable[[], object]] = {
        name: getattr(told, name)
        for name in ("token", "record", "job", "unseen_job", "collect", "encode")
    }
    found = in_turns({name: partial(microseconds, work) for name, work in works.items()}, ROUNDS)
    rows = [row(spent, metric=name, x="", unit="us") for name, spent in found.items()]
    rounds = [dict(zip(found, costs, strict=True)) for costs in zip(*found.values(), strict=True)]
    for tokens in JOB_TOKENS:
        each = [shares(costs, tokens) for costs in rounds]
        rows.append(row(each, metric="share of the event loop", x=tokens, unit="%"))
    rows.append(row([len(told.encode())], metric="page", x="", unit="bytes"))
    return rows


if __name__ == "__main__":
    keep(QUESTION, measure())
