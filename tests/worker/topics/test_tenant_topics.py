"""A topic of one tenant that breaks the contract stops that tenant, and nobody else."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self

import pytest

from aril.schemas import ErrorCode, ErrorRecord, Job
from aril.worker.job import Partition
from aril.worker.observe.health import Health
from aril.worker.observe.metrics import Metrics
from aril.worker.replies.broker_clock import BrokerClock
from aril.worker.settings import load_settings
from aril.worker.startup import Startup
from aril.worker.topics.contract import DAY_MS, Contract, Finding, TopicState, judge
from aril.worker.topics.tenant_topics import LOOK_TOPICS, TenantTopics
from tests.support.harness import Harness

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from aril.worker.queue.assignment import PartitionState

WRONG = Finding("error", "replies.acme", "cleanup.policy is compact")


def refused(metrics: Metrics, kind: str = "replies") -> float | None:
    """Return how many topics are counted as refused."""
    return metrics.registry.get_sample_value("aril_topics_refused", {"kind": kind})


class Admin:
    """Tells the findings that a test lays out."""

    def __init__(self, findings: list[Finding], told: set[str] | None = None) -> None:
        self.findings = findings
        self.told = told  # None: whatever is asked for
        self.asked: list[list[str]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None: ...

    async def verify_shared(self) -> list[Finding]:
        """Return all."""
        return self.findings

    async def judge_some(self, names: Iterable[str]) -> tuple[list[Finding], set[str]]:
        """Return those of some topics."""
        self.asked.append(list(names))
        told = set(self.asked[-1]) if self.told is None else self.told
        return [each for each in self.findings if each.topic in told], told


def asked_of(admin: Admin) -> Any:
    """Have topics ask this one."""
    return lambda: admin


async def test_topics_that_are_used_first_in_one_moment_share_a_look() -> None:
    """Each is judged before anything is written to it, and only once."""
    admin = Admin([WRONG])
    topics = TenantTopics(Contract(), Metrics(), asked_of(admin))
    names = ["replies.zeta", "replies.acme", "replies.acme"]
    assert await asyncio.gather(*map(topics.first_use, names)) == [None, WRONG.text, WRONG.text]
    assert admin.asked == [["replies.zeta", "replies.acme"]]
    assert topics.why_refused("replies.acme") == WRONG.text


async def test_a_look_that_is_not_answered_keeps_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """The topic counts as right until a later look."""
    monkeypatch.setattr("aril.worker.topics.tenant_topics.FIRST_SECONDS", 0.01)

    class Silent(Admin):
        async def judge_some(self, names: Iterable[str]) -> tuple[list[Finding], set[str]]:
            await asyncio.Event().wait()
            return await super().judge_some(names)

    topics = TenantTopics(Contract(), Metrics(), asked_of(Silent([WRONG])))
    assert await asyncio.wait_for(topics.first_use("replies.acme"), 5) is None


async def test_a_topic_that_is_wrong_at_its_first_use_refuses_its_job() -> None:
    """The tenant is told there what is wrong; others' jobs run."""
    topics = TenantTopics(Contract(), Metrics(), asked_of(Admin([WRONG])))
    async with Harness(first_use=topics.first_use) as harness:
        for tenant in ("acme", "zeta"):
            harness.send(Job(id="j1", tenant=tenant, prompt=tenant))
        await harness.settle()
        assert harness.running == ["zeta"]
        (told,) = harness.replies("acme", "j1")
        assert isinstance(told, ErrorRecord)
        assert (told.code, told.message) == (ErrorCode.INTERNAL, f"{WRONG}")


async def test_only_its_own_tenant_is_refused() -> None:
    """With an error that says what is wrong; the others' jobs run."""
    topics = TenantTopics(Contract(), Metrics())
    topics.learn([WRONG, Finding("error", "jobs", "does not exist")])
    async with Harness(why_refused=topics.why_refused) as harness:
        for tenant in ("acme", "zeta"):
            harness.send(Job(id="j1", tenant=tenant, prompt=tenant))
        await harness.settle()
        assert harness.running == ["zeta"]
        (told,) = harness.replies("acme", "j1")
        assert isinstance(told, ErrorRecord)
        assert (told.code, told.message) == (ErrorCode.INTERNAL, f"{WRONG}")


async def test_a_worker_starts_beside_a_wrong_reply_topic(monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits for topics that are everybody's, and the probe never tells a tenant's name."""
    monkeypatch.setattr("aril.worker.startup.RETRY_SECONDS", 0.01)
    admin, health = Admin([WRONG]), Health()
    monkeypatch.setattr("aril.worker.startup.topic_admin", lambda _: admin)
    metrics = Metrics()
    flags = {"tenant_from": "topic", "jobs_topic": "jobs.*"}
    settings = load_settings(flags=flags).settings
    topics = TenantTopics(Contract.of(settings), metrics)
    own = Finding("error", "jobs.zeta", "cleanup.policy is compact")
    admin.findings = [WRONG, own, Finding("error", "jobs.dlq", "does not exist")]
    waiting = asyncio.create_task(Startup(settings, "w", health, topics)._check_topics())
    await asyncio.sleep(0.05)
    assert not waiting.done()
    assert "zeta" not in str(health.readiness())
    assert health.readiness()[1]["topics"] == "jobs.dlq: does not exist"
    admin.findings = [WRONG, own]
    await asyncio.wait_for(waiting, 5)
    assert "topics" not in health.readiness()[1]
    assert refused(metrics) == 1
    assert refused(metrics, "jobs") == 1
    assert topics.why_refused("jobs.zeta") == own.text


@pytest.fixture
async def served() -> AsyncIterator[tuple[Harness, TenantTopics]]:
    """Run a worker that reads a jobs topic of each tenant."""
    topics = TenantTopics(Contract(jobs_topic="jobs.*"), Metrics())
    async with Harness(
        why_refused=topics.why_refused, tenant_from="topic", jobs_topic="jobs.*"
    ) as harness:
        yield harness, topics


def win(harness: Harness, topic: str) -> PartitionState:
    """Win the partition of a jobs topic, and no other."""
    return harness.assign(generation=3, source=Partition(topic, 0))


async def test_a_wrong_jobs_topic_refuses_its_own_tenant_only(
    served: tuple[Harness, TenantTopics],
) -> None:
    """Its jobs end in an error that says what is wrong, until it is mended; the others' run."""
    harness, topics = served
    topics.learn([Finding("error", "jobs.acme", "cleanup.policy is compact")])
    state = win(harness, "jobs.acme")
    harness.deliver(state, 0, Job(id="j1", tenant="acme", prompt="a"), topic="jobs.acme")
    harness.deliver(state, 1, Job(id="j1", tenant="zeta", prompt="z"), topic="jobs.zeta")
    await harness.settle()
    assert harness.running == ["z"]
    (told,) = harness.replies("acme", "j1")
    assert isinstance(told, ErrorRecord)
    assert told.code is ErrorCode.INTERNAL
    assert told.message == "jobs.acme: cleanup.policy is compact"
    topics.learn([], {"jobs.acme"})
    harness.deliver(state, 2, Job(id="j2", tenant="acme", prompt="b"), topic="jobs.acme")
    await harness.settle()
    assert harness.running == ["z", "b"]


async def test_times_of_a_wrong_jobs_topic_are_not_the_brokers(
    served: tuple[Harness, TenantTopics],
) -> None:
    """A producer that may set them would end other tenants' jobs before their time."""
    harness, topics = served
    harness.writer.clock = harness.lifecycle._clock = clock = BrokerClock()
    topics.learn([Finding("error", "jobs.acme", "message.timestamp.type is CreateTime")])
    state = win(harness, "jobs.acme")
    ahead = Job(id="j1", tenant="acme", prompt="a")
    harness.deliver(state, 0, ahead, topic="jobs.acme", age_ms=-1e9)
    assert clock.now_ms(1e6) <= 1e6
    topics.learn([])
    harness.deliver(state, 1, ahead, topic="jobs.acme", age_ms=-1e9)
    assert clock.now_ms(1e6) > 1e6


async def test_topics_that_change_later_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """One in use that went wrong is refused; one that was mended is served again."""
    monkeypatch.setattr("aril.worker.topics.tenant_topics.LOOK_SECONDS", 0.01)
    metrics, admin = Metrics(), Admin([])
    topics = TenantTopics(Contract(), metrics, asked_of(admin))
    in_use = [f"replies.t{number}" for number in range(2 * LOOK_TOPICS)]
    watching = asyncio.create_task(topics.watch(lambda: in_use))
    admin.findings = [Finding("error", in_use[-1], "retention.bytes is 1, must be -1")]
    async with asyncio.timeout(5):
        while topics.why_refused(in_use[-1]) is None:  # noqa: ASYNC110 - the watch has no signal
            await asyncio.sleep(0.01)
        assert refused(metrics) == 1
        assert all(len(names) <= LOOK_TOPICS for names in admin.asked)
        admin.findings = []
        while topics.why_refused(in_use[-1]) is not None:  # noqa: ASYNC110 - same
            await asyncio.sleep(0.01)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    assert refused(metrics) == 0


def test_topics_that_are_new_in_use_are_looked_at_first() -> None:
    """Not when their turn has come after all the old ones; each look has its bound."""
    topics = TenantTopics(Contract(), Metrics())
    in_use = [f"replies.t{number}" for number in range(3 * LOOK_TOPICS)]
    for _ in range(3):
        topics._turn(in_use)
    for number in range(5):
        in_use.append(f"replies.new{number}")
        turn = topics._turn(in_use)
        assert in_use[-1] in turn
        assert len(turn) <= LOOK_TOPICS


def test_new_topics_go_first_when_others_went_out_of_use() -> None:
    """Those that are known by now are fewer than were looked at once."""
    topics = TenantTopics(Contract(), Metrics())
    in_use = [f"replies.t{number}" for number in range(6 * LOOK_TOPICS)]
    for _ in range(6):
        topics._turn(in_use)
    in_use = in_use[-3 * LOOK_TOPICS :]
    topics._turn(in_use)
    in_use.append("replies.new")
    assert topics._turn(in_use)[0] == "replies.new"


def test_what_the_brokers_do_not_tell_stays_as_it_was() -> None:
    """A look that learned nothing of a topic does not clear it."""
    topics = TenantTopics(Contract(), Metrics())
    topics.learn([WRONG])
    topics.learn([], {"replies.zeta"})
    assert topics.why_refused("replies.acme") == WRONG.text
    topics.learn([], {"replies.acme"})
    assert topics.why_refused("replies.acme") is None


def test_one_tenants_long_queue_makes_no_other_reply_topic_too_short() -> None:
    """With a topic for each tenant, a reply topic has to outlive its own tenant's jobs."""
    kept = {"cleanup.policy": "delete", "message.timestamp.type": "LogAppendTime"}
    jobs = {name: {"retention.ms": str(days * DAY_MS), "segment.ms": "1"} | kept
            for name, days in (("jobs.acme", 3), ("jobs.zeta", 30))}  # fmt: skip
    replies = {f"replies.{name}": {"retention.ms": str(6 * DAY_MS)} | kept
               for name in ("acme", "zeta")}  # fmt: skip
    states = [TopicState(name, 1, config) for name, config in (jobs | replies).items()]
    found = judge(Contract(jobs_topic="jobs.*"), [*states, TopicState("jobs.dlq", 1)])
    assert [each.topic for each in found if each.level == "error"] == ["replies.zeta"]
