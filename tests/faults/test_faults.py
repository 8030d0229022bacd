"""Workers die, freeze and come and go on a real Kafka, and every reader has every answer whole.

`FAULT_SEED` repeats a run's order of faults, `FAULT_SECONDS` makes the long run longer, and
`FAULT_PLAN` (names, by commas; those joined by a plus come together) runs these faults only.
"""

from __future__ import annotations

import os
import random
import time
import uuid
from typing import TYPE_CHECKING

import pytest

from tests.faults.checker import check
from tests.faults.history import History
from tests.support.fault_broker import MortalKafka
from tests.support.fault_fleet import PARTITIONS, FaultSite, Fleet
from tests.support.fault_load import ANSWER_SECONDS, TENANTS, Load
from tests.support.fault_plan import STEADY, Faults
from tests.support.fault_watch import SETTLE_SECONDS, Offsets, dead_letters, inputs, replies
from worker.topics import Contract, TopicPlan, ensure_topics

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.faults.checker import Report
    from tests.support.brokers import Kafka

pytestmark = [pytest.mark.kafka]

BUG_SECONDS = 30.0  # what a broken worker has lost is not waited for any longer


@pytest.fixture
async def site(kafka: Kafka, tmp_path: Path) -> FaultSite:
    """Create topics of its own for a run."""
    if kafka.kind == "embedded":
        pytest.skip("the embedded broker keeps no commit metadata and rebalances for seconds")
    return await site_on(kafka.bootstrap, tmp_path)


async def site_on(bootstrap: str, folder: Path) -> FaultSite:
    """Create topics of a name that nobody has."""
    stem = uuid.uuid4().hex[:6]
    contract = Contract(
        jobs_topic=f"jobs-{stem}", dlq_topic=f"dlq-{stem}", replies_prefix=f"replies-{stem}."
    )
    plan = TopicPlan(jobs_partitions=PARTITIONS, reply_partitions=PARTITIONS)
    await ensure_topics(bootstrap, contract, list(TENANTS), plan)
    return FaultSite(bootstrap, contract, folder)


@pytest.fixture
def seed() -> int:
    """Return what decides the order of faults; printed, so that it can be given again."""
    chosen = int(os.environ.get("FAULT_SEED") or random.SystemRandom().randrange(10**6))
    print(f"FAULT_SEED={chosen}")
    return chosen


async def run(
    site: FaultSite,
    seed: int,
    *,
    seconds: float = 0.0,
    plan: Sequence[str] = (),
    bug: str | None = None,
    broker: MortalKafka | None = None,
) -> Report:
    """Commit a round of faults, and more until the time is over; heal; check what was seen."""
    fleet = Fleet(site, {"FAULT_BUG": bug} if bug else {})
    faults = Faults(fleet, seed, broker)
    load = Load(site, seed, BUG_SECONDS if bug else ANSWER_SECONDS)
    begun = time.monotonic()
    try:
        await fleet.grow(STEADY)
        async with load, Offsets(site) as offsets:
            names = plan or [each for each in os.environ.get("FAULT_PLAN", "").split(",") if each]
            while True:
                for name in names or faults.plan(whole=seconds > 0):
                    before = time.monotonic()
                    await faults.commit(name)
                    print(f"{before - begun:6.1f} s {name}: {time.monotonic() - before:.1f} s")
                if time.monotonic() - begun >= seconds:
                    break
            await load.finish()
            open_ = await offsets.settled(BUG_SECONDS if bug else SETTLE_SECONDS)
            for worker in [*fleet.steady]:
                await fleet.drain(worker)
    finally:
        await fleet.close()
    history = History(
        asked=load.asked,
        log=await replies(site),
        live=load.live,
        inputs=await inputs(site),
        committed=offsets.seen,
        dead=await dead_letters(site),
        zombies=faults.zombies,
        generations_restarted=faults.generations_restarted,
        unfinished=load.unfinished,
    )
    report = check(history)
    for text in (*open_, *fleet.failed, *faults.missed):
        report.add("fleet", "", text)
    told = [*report.counts.items(), ("client restarts", load.restarts)]
    print(f"seed {seed}, {time.monotonic() - begun:.0f} s:", ", ".join(f"{n} {k}" for k, n in told))
    print("faults:", dict(faults.done))
    print("workers:", dict(fleet.events), "slowest answer:", *load.slowest)
    show(report, history)
    return report


def show(report: Report, history: History) -> None:
    """Print what is wrong, and all that the log holds of the first jobs that are."""
    for each in report.violations[:40]:
        print("VIOLATION", *each)
    logs = {str(name): log for name, log in history.by_job.items()}
    for where in list(dict.fromkeys(each.where.split(" ")[0] for each in report.violations))[:5]:
        for logged in logs.get(where, ()):
            print(where, logged.partition, logged.offset, logged.at_ms, logged.record)


@pytest.mark.timeout(400)
async def test_a_round_of_faults(site: FaultSite, seed: int) -> None:
    """All points, one fault of each other kind, in a seeded order: no token lost or altered."""
    report = await run(site, seed)
    assert report.violations == []


@pytest.mark.slow
@pytest.mark.timeout(0)
async def test_faults_again_and_again(site: FaultSite, seed: int) -> None:
    """The same for ten minutes, or for `FAULT_SECONDS`."""
    report = await run(site, seed, seconds=float(os.environ.get("FAULT_SECONDS", "600")))
    assert report.violations == []


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_a_broker_that_halts_and_dies(kafka: Kafka, seed: int, tmp_path: Path) -> None:
    """A broker is silent, then gone and back, while workers die: all is answered all the same."""
    if kafka.kind != "apache":
        pytest.skip("it takes an Apache Kafka of its own")
    plan = ["broker_halted", "broker_killed", "broker_killed+mid_stream", "broker_halted+zombie"]
    async with MortalKafka(tmp_path / "kafka") as broker:
        mortal = await site_on(broker.bootstrap, tmp_path)
        report = await run(mortal, seed, plan=plan, broker=broker)
    assert report.violations == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bug", "plan", "rules"),
    [
        ("commit_early", ["mid_stream"] * 3, {"committed"}),
        ("never_claim", ["mid_stream", "after_terminal"], {"terminal", "reset"}),
        ("never_read_back", ["mid_stream", "after_terminal"], {"reset"}),
        ("one_generation", ["mid_stream", "zombie"], {"two_writers"}),
    ],
)
async def test_a_worker_with_a_bug_is_noticed(
    site: FaultSite, seed: int, bug: str, plan: list[str], rules: set[str]
) -> None:
    """The harness has teeth: each of these bugs breaks a rule that is named for it."""
    report = await run(site, seed, plan=plan, bug=bug)
    assert report.rules & rules
