r"""Workers die, freeze and come and go on a real Kafka, and every reader has every answer whole.

`FAULT_SEED` repeats a run's order of faults and its jobs, and `FAULT_PLAN` (names, by commas;
those joined by a plus come together) runs these faults only. The long run goes on until it has
lasted `FAULT_SECONDS`, sent `FAULT_JOBS` and committed `FAULT_FAULTS`, as far as they are given;
with `FAULT_JOBS` it asks for many short jobs among the long ones. A plan that kills or halts the
broker gets one of its own. `FAULT_SUMMARY` names a CSV for its figures. `FAULT_PROTOCOL=consumer`
has all workers in their group by KIP-848. The run that is kept, of about half an hour on two cores:

    FAULT_SEED=1 FAULT_JOBS=20000 FAULT_FAULTS=250 FAULT_SUMMARY=benchmarks/results/faults.csv \
        .venv/bin/pytest -s tests/faults/test_faults.py -k again_and_again
"""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

import pytest

from tests.faults.campaign import Campaign, Goal
from tests.support.fault_broker import MortalKafka
from tests.support.fault_load import TENANTS
from tests.support.fault_topics import site_on
from tests.support.group_protocols import by_either_protocol
from tests.support.two_brokers import two_brokers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.brokers import Kafka
    from tests.support.fault_fleet import FaultSite

pytestmark = [pytest.mark.kafka]


@pytest.fixture
async def site(kafka: Kafka, tmp_path: Path) -> FaultSite:
    """Create topics of its own for a run."""
    if kafka.kind == "embedded":
        pytest.skip("the embedded broker keeps no commit metadata and rebalances for seconds")
    return await site_on(kafka.bootstrap, tmp_path)


@pytest.fixture
def seed() -> int:
    """Return what decides the order of faults; printed, so that it can be given again."""
    chosen = int(os.environ.get("FAULT_SEED") or random.SystemRandom().randrange(10**6))
    print(f"FAULT_SEED={chosen}")
    return chosen


@pytest.fixture
async def mortal(kafka: Kafka, tmp_path: Path) -> AsyncIterator[MortalKafka | None]:
    """Run a broker that may die, if the plan that is told has it die."""
    if kafka.kind == "apache" and "broker_" in os.environ.get("FAULT_PLAN", ""):
        async with MortalKafka(tmp_path / "kafka") as broker:
            yield broker
    else:
        yield None


@pytest.mark.timeout(400)
async def test_a_round_of_faults(site: FaultSite, seed: int) -> None:
    """All points, one fault of each other kind, in a seeded order: no token lost or altered."""
    report = await Campaign(site, seed).run()
    assert report.violations == []


@pytest.mark.slow
@pytest.mark.timeout(0)
async def test_faults_again_and_again(
    site: FaultSite, seed: int, mortal: MortalKafka | None, tmp_path: Path
) -> None:
    """All faults again and again, for ten minutes or up to the goal that is told."""
    if mortal is not None:
        site = await site_on(mortal.bootstrap, tmp_path)
    report = await Campaign(site, seed, Goal.told(), broker=mortal).run()
    assert report.violations == []


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_every_fault_in_a_group_that_consolidates(site: FaultSite, seed: int) -> None:
    """Partitions move by load as well, as often as every few seconds: nothing else changes."""
    settings = {"ARIL_ASSIGNOR": "consolidate", "ARIL_REBALANCE_SECONDS": "3"}
    report = await Campaign(site, seed, Goal(seconds=1), settings=settings).run()
    assert report.violations == []


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_every_fault_by_the_consumer_protocol(site: FaultSite, seed: int) -> None:
    """The brokers assign, and partitions move one by one: nothing else changes."""
    settings = {"ARIL_GROUP_PROTOCOL": "consumer"}
    report = await Campaign(site, seed, Goal(seconds=1), settings=settings).run()
    assert report.violations == []


@pytest.mark.slow
@pytest.mark.timeout(600)
@by_either_protocol
async def test_a_broker_that_halts_and_dies(
    kafka: Kafka, seed: int, tmp_path: Path, group_protocol: str
) -> None:
    """A broker is silent, then gone and back, while workers die: all is answered all the same."""
    if kafka.kind != "apache":
        pytest.skip("it takes an Apache Kafka of its own")
    plan = [
        "broker_halted",
        "broker_killed",
        "broker_killed_in_commit",
        "broker_killed+mid_stream",
        "broker_halted+zombie",
        "broker_killed_in_commit",
    ]
    async with MortalKafka(tmp_path / "kafka") as broker:
        mortal = await site_on(broker.bootstrap, tmp_path)
        settings = {"ARIL_GROUP_PROTOCOL": group_protocol}
        report = await Campaign(mortal, seed, plan=plan, broker=broker, settings=settings).run()
    assert report.violations == []


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_a_reply_broker_that_dies(kafka: Kafka, seed: int, tmp_path: Path) -> None:
    """One tenant's replies are out of reach, while workers die: all others are answered."""
    if kafka.kind != "apache":
        pytest.skip("it takes two brokers of our own")
    plan = [
        "reply_broker_killed",
        "reply_broker_killed+mid_stream",
        "reply_broker_killed+zombie",
        "reply_broker_killed+rolling_restart",
        "reply_broker_killed+odd_records+after_claim",
    ]
    async with two_brokers(tmp_path) as (first, second):
        site = await site_on(first.bootstrap, tmp_path, away=TENANTS[-1])
        report = await Campaign(site, seed, plan=plan, broker=second).run()
    assert report.violations == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bug", "plan", "rules"),
    [
        ("adapters_by_name", ["mid_stream"], {"content"}),
        ("cancel_neighbours", ["mid_stream"] * 3, {"error"}),
        ("commit_early", ["mid_stream"] * 3, {"committed"}),
        ("constraint_begun_anew", ["mid_stream"] * 3, {"content"}),
        ("hasty_deadlines", ["mid_stream"] * 3, {"early"}),
        ("never_claim", ["mid_stream", "after_terminal"], {"terminal", "reset"}),
        ("never_read_back", ["mid_stream", "after_terminal"], {"reset"}),
        ("no_snappy", ["mid_stream"], {"poison"}),
        ("one_fetch_at_a_time", ["store_slow"], {"stood_still"}),
        ("odd_ones_left_out", ["packed_badly+odd_records"], {"poison"}),
        ("one_generation", ["mid_stream", "zombie"], {"two_writers"}),
        ("refused_by_an_ill_store", ["store_ill"], {"error"}),
        ("silent_reset", ["prefix_deleted"], {"untold"}),
    ],
)
async def test_a_worker_with_a_bug_is_noticed(
    site: FaultSite, seed: int, bug: str, plan: list[str], rules: set[str]
) -> None:
    """The harness has teeth: each of these bugs breaks a rule that is named for it."""
    report = await Campaign(site, seed, plan=plan, bug=bug).run()
    assert report.rules & rules
