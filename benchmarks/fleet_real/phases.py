"""What is done to the fleet, one after the other; each returns rows of the CSV."""

from __future__ import annotations

import asyncio
import functools
import signal
import time
from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple

from benchmarks.fleet_real.fleet import busiest, grown, is_by, writers
from benchmarks.fleet_real.streams import share
from benchmarks.fleet_real.worker import ANSWERS, METADATA, TOLD, TOPIC_SETTINGS
from benchmarks.record import Row

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.fleet_real.fleet import Fleet, Usage
    from benchmarks.fleet_real.load import Load

NAMED: Final = "fleet_real"  # no QUESTION: `make bench` does not take another quarter of an hour
PATIENCE: Final = 180.0
CORES: Final = 2
BROKER_REQUESTS: Final = ("Metadata", "Produce", "Fetch", "OffsetCommit", "ListOffsets")


class Rows:
    """Collects the rows of one phase."""

    def __init__(self, fleet: Fleet, phase: str) -> None:
        self.all: list[Row] = []
        self._row = functools.partial(
            Row.of, question=NAMED, provider=phase, x=fleet.plan.workers, config=str(fleet.plan)
        )

    def add(self, metric: str, unit: str, *values: float) -> None:
        """Add a row: one value, or the spread of several; none where there is none."""
        if values:
            self.all.append(self._row(values, metric=metric, unit=unit))

    def add_delays(self, metric: str, seconds: Sequence[float]) -> None:
        """Add a spread in milliseconds, its 99th percentile and its worst."""
        if seconds:
            found = [each * 1e3 for each in seconds]
            self.add(metric, "ms", *found)
            self.add(f"{metric}, p99", "ms", share(found, 0.99))
            self.add(f"{metric}, worst", "ms", max(found))


async def start(fleet: Fleet, load: Load) -> list[Row]:
    """Start one worker, then all others at once."""
    rows = Rows(fleet, "start")
    for readers, follow in (("all", load.follow_all), ("no", load.follow_open)):
        follow()
        await asyncio.sleep(fleet.plan.warm_seconds)
        calm = fleet.usage()
        await asyncio.sleep(fleet.plan.warm_seconds)
        used = fleet.usage()
        metric = f"no worker, {readers} reply topics are read: CPU of the broker"
        rows.add(metric, "s/s", rates_of(calm, used)["broker"])
    begun = time.time()
    first = await fleet.join()
    rows.add("first worker has all partitions", "s", await fleet.settled() - begun)
    calm = fleet.usage()
    await asyncio.sleep(fleet.plan.warm_seconds)
    rates = rates_of(calm, fleet.usage())
    rows.add("one idle worker: its CPU", "s/s", rates[first.name])
    rows.add("one idle worker: CPU of the broker", "s/s", rates["broker"])
    generation, begun = fleet.generation, time.time()
    await asyncio.gather(*(fleet.join() for _ in range(fleet.plan.workers - 1)))
    rows.add("all others have joined and settled", "s", await fleet.settled() - begun)
    rows.add("rebalances of it", "1", fleet.generation - generation)
    rows.add("CPU of broker and workers for it", "s", spent_since(used, fleet.usage()))
    await asyncio.sleep(fleet.plan.warm_seconds)
    calm = fleet.usage()
    await asyncio.sleep(fleet.plan.warm_seconds)
    add_usage(rows, calm, fleet.usage(), "idle")
    return rows.all


def rates_of(before: Usage, after: Usage) -> dict[str, float]:
    """Return the CPU seconds a second of each process that was there all the time."""
    lasted = after.at - before.at
    return {
        name: (after.seconds[name] - seconds) / lasted
        for name, seconds in before.seconds.items()
        if name in after.seconds
    }


def spent_since(before: Usage, after: Usage) -> float:
    """Return the CPU seconds of all processes but the load's, those included that came later."""
    return sum(
        seconds - before.seconds.get(name, 0.0)
        for name, seconds in after.seconds.items()
        if name != "load"
    )


def add_usage(rows: Rows, before: Usage, after: Usage, when: str) -> None:
    """Add what processes used a second, and the share of the machine that is."""
    rates = rates_of(before, after)
    workers = [rate for name, rate in rates.items() if name not in {"broker", "load"}]
    rows.add(f"{when}: CPU of a worker", "s/s", *workers)
    rows.add(f"{when}: CPU of the broker", "s/s", rates["broker"])
    rows.add(f"{when}: CPU of load and readers", "s/s", rates["load"])
    rows.add(f"{when}: share of {CORES} cores", "%", sum(rates.values()) / CORES * 100)
    held = [size / 1e6 for name, size in after.resident.items() if name not in {"broker", "load"}]
    rows.add(f"{when}: memory of a worker", "MB", *held)
    rows.add(f"{when}: memory of the broker", "MB", after.resident["broker"] / 1e6)


async def steady(fleet: Fleet, load: Load) -> list[Row]:
    """Load about half of the rows for a while."""
    plan, rows = fleet.plan, Rows(fleet, "steady")
    async with load.asking(plan.steady_jobs, plan.steady_tokens):
        await asyncio.sleep(fleet.plan.warm_seconds)
        asked, metrics = await fleet.kafka.requests(), await fleet.metrics()
        used, begun = fleet.usage(), time.monotonic()
        await asyncio.sleep(plan.steady_seconds)
        lasted, used_then = time.monotonic() - begun, fleet.usage()
        metrics_then, asked_then = await fleet.metrics(), await fleet.kafka.requests()
        counted = time.monotonic() - begun
    await load.answered(PATIENCE)
    share_of_rows = plan.steady_jobs * plan.steady_tokens / plan.capacity
    rows.add("rows in use", "%", share_of_rows * 100)
    rows.add_delays("first token", load.streams.first_tokens(begun, begun + lasted))
    gaps = [gap.seconds for gap in load.streams.gaps(begun, begun + lasted)]
    rows.add_delays("between tokens", gaps)
    add_usage(rows, used, used_then, "steady")
    for metric, name in (
        ("loop time on metadata", METADATA),
        ("loop time on topics' settings", TOPIC_SETTINGS),
    ):
        spent = grown(metrics, metrics_then, name)
        rows.add(metric, "ms/s", *(each * 1e3 / counted for each in spent))
    for metric, name in (("metadata answers", ANSWERS), ("topics in them", TOLD)):
        rows.add(metric, "1/s", sum(grown(metrics, metrics_then, name)) / counted)
    for kind in BROKER_REQUESTS:
        rate = (asked_then[kind] - asked[kind]) / counted
        rows.add(f"broker: {kind} requests", "1/s", rate)
    return rows.all


async def join(fleet: Fleet, load: Load) -> list[Row]:
    """Let one more worker join while a long queue waits."""
    plan, rows = fleet.plan, Rows(fleet, "one joins a long queue")
    metrics, claimed, unbegun = (
        await fleet.metrics(),
        load.streams.claims,
        load.streams.claims_unbegun,
    )
    used = fleet.usage()
    while load.streams.open < plan.queued_jobs:  # some are answered meanwhile
        await load.ask_many(plan.queued_jobs - load.streams.open, plan.queued_tokens)
    joined, waiting, generation = time.monotonic(), load.streams.open, fleet.generation
    newcomer = await fleet.join()
    rows.add("unfinished jobs as it is started", "1", waiting)
    rows.add("and as it is ready", "1", load.streams.open)
    rows.add("seconds until it is ready", "s", time.monotonic() - joined)
    await load.answered(PATIENCE)
    add_usage(rows, used, fleet.usage(), "under the queue")
    lasted = time.monotonic() - used.at
    metrics_then = await fleet.metrics()
    rows.add("claims", "1", load.streams.claims - claimed)
    rows.add("claims of jobs that nobody had begun", "1", load.streams.claims_unbegun - unbegun)
    rows.add(
        "jobs that stayed with their worker",
        "1",
        sum(grown(metrics, metrics_then, "aril_jobs_kept_total")),
    )
    rows.add("rebalances of it", "1", fleet.generation - generation)
    spent = grown(metrics, metrics_then, METADATA)
    rows.add("loop time on metadata", "ms/s", *(each * 1e3 / lasted for each in spent))
    settings = grown(metrics, metrics_then, TOPIC_SETTINGS)
    rows.add("loop time on topics' settings", "ms/s", *(each * 1e3 / lasted for each in settings))
    rows.add("jobs answered", "1/s", waiting / (time.monotonic() - joined))
    await newcomer.stop()
    await fleet.settled()
    return rows.all


async def restart(fleet: Fleet, load: Load) -> list[Row]:
    """Restart workers one after another under load."""
    plan, rows = fleet.plan, Rows(fleet, "rolling restart")
    async with load.asking(plan.restart_jobs, plan.restart_tokens):
        calm = time.monotonic()
        await asyncio.sleep(2 * plan.warm_seconds)
        generation, claims, begun = fleet.generation, load.streams.claims, time.monotonic()
        lasted, drained = [], []
        for worker in fleet.alive[: plan.restarts]:
            since = time.monotonic()
            await worker.stop()
            drained.append(time.monotonic() - since)
            await fleet.join()
            lasted.append(time.monotonic() - since)
        await fleet.settled()
        ended = time.monotonic()
        rebalances = fleet.generation - generation
    await load.answered(PATIENCE)
    rows.add("one restart", "s", *lasted)
    rows.add("of that, until the old one has ended", "s", *drained)
    rows.add("rebalances", "1", rebalances)
    rows.add("rebalances a restart", "1", rebalances / len(lasted))
    rows.add("claims", "1", load.streams.claims - claims)
    for when, (since, until) in (("before", (calm, begun)), ("meanwhile", (begun, ended))):
        gaps = [gap.seconds for gap in load.streams.gaps(since, until)]
        rows.add_delays(f"between tokens, {when}", gaps)
        rows.add_delays(f"first token, {when}", load.streams.first_tokens(since, until))
    return rows.all


class Death(NamedTuple):
    """What became of the streams of workers that were killed; in seconds since."""

    hit: int  # streams that ran there
    delays: list[float]  # until their next token
    settled: float  # until all partitions were somebody's again


async def kill(fleet: Fleet, load: Load, number: int) -> Death:
    """Kill so many at once with SIGKILL, and start as many anew when all is answered."""
    plan = fleet.plan
    await load.ask_many(plan.streams, plan.killed_tokens)
    await asyncio.sleep(plan.warm_seconds / 2)
    running = [each for each in load.streams.all.values() if each.running]
    counts = Counter((each.visible.writer or "--").rsplit("-", 2)[1] for each in running)
    victims = busiest(fleet.alive, counts, number)
    theirs = writers(victims)
    hit = [each for each in running if is_by(each.visible.writer, theirs)]
    killed, clock = time.monotonic(), time.time()
    for victim in victims:
        victim.signal(signal.SIGKILL)
    await asyncio.gather(*(victim.wait() for victim in victims))
    settled = await fleet.settled() - clock
    await load.answered(PATIENCE)
    delays = [
        gap.ended - killed
        for each in hit
        for gap in each.gaps
        if gap.begun < killed + 1 <= gap.ended
    ]
    await asyncio.gather(*(fleet.join() for _ in victims))
    await fleet.settled()
    return Death(len(hit), delays, settled)


async def deaths(fleet: Fleet, load: Load) -> list[Row]:
    """Kill one, again, and then several at once."""
    plan, found = fleet.plan, list[Row]()
    for phase, rounds, number in (
        ("kill -9 of one", plan.killed_alone, 1),
        (f"kill -9 of {plan.killed} at once", 1, plan.killed),
    ):
        if not number:
            continue
        deaths = [await kill(fleet, load, number) for _ in range(rounds)]
        rows = Rows(fleet, phase)
        late = [delay - plan.session_seconds for each in deaths for delay in each.delays]
        rows.add("streams that ran there", "1", sum(each.hit for each in deaths))
        rows.add("of these, streams that went on", "1", len(late))
        rows.add("next token, beyond the session time-out", "s", *late)
        rows.add("the same, worst", "s", max(late, default=0.0))
        settled = (each.settled - plan.session_seconds for each in deaths)
        rows.add("all partitions owned again, beyond it", "s", *settled)
        found += rows.all
    return found


def verdict(fleet: Fleet, load: Load) -> list[Row]:
    """Judge every answer of the run."""
    rows = Rows(fleet, "all answers")
    streams = load.streams
    rows.add("jobs", "1", len(streams.all))
    rows.add("tenants with a job", "1", len({each.tenant for each in streams.all.values()}))
    for name, count in streams.verdicts().items():
        rows.add(name, "1", count)
    rows.add("records of nobody's job", "1", streams.strange)
    return rows.all
