"""A reply topic that breaks the contract stops its own tenant, and nobody else."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self

from schemas import ErrorCode, ErrorRecord, Job
from tests.support.harness import Harness
from worker.observe.health import Health
from worker.observe.metrics import Metrics
from worker.settings import load_settings
from worker.startup import Startup
from worker.topics.contract import DAY_MS, Contract, Finding, TopicState, judge
from worker.topics.reply_topics import LOOK_TOPICS, ReplyTopics

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pytest

WRONG = Finding("error", "replies.acme", "cleanup.policy is compact")


def refused(metrics: Metrics) -> float | None:
    """Return how many topics are counted as refused."""
    return metrics.registry.get_sample_value("aril_reply_topics_refused")


class Admin:
    """Tells the findings that a test lays out."""

    def __init__(self, findings: list[Finding], told: set[str] | None = None) -> None:
        self.findings = findings
        self.told = told  # None: whatever is asked for
        self.asked: list[list[str]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None: ...

    async def verify(self) -> list[Finding]:
        """Return all."""
        return self.findings

    async def judge_replies(self, names: Iterable[str]) -> tuple[list[Finding], set[str]]:
        """Return those of some topics."""
        self.asked.append(list(names))
        told = set(self.asked[-1]) if self.told is None else self.told
        return [each for each in self.findings if each.topic in told], told


async def test_only_its_own_tenant_is_refused() -> None:
    """With an error that says what is wrong; the others' jobs run."""
    topics = ReplyTopics(Contract(), Metrics())
    topics.learn([WRONG, Finding("error", "jobs", "does not exist")])
    async with Harness() as harness:
        harness.lifecycle.parts.admission._why_refused = topics.why_refused
        for tenant in ("acme", "zeta"):
            harness.send(Job(id="j1", tenant=tenant, prompt=tenant))
        await harness.settle()
        assert harness.running == ["zeta"]
        (told,) = harness.replies("acme", "j1")
        assert isinstance(told, ErrorRecord)
        assert (told.code, told.message) == (ErrorCode.INTERNAL, f"{WRONG}")


async def test_a_worker_starts_beside_a_wrong_reply_topic(monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits for topics that are everybody's, and the probe never tells a tenant's name."""
    monkeypatch.setattr("worker.startup.RETRY_SECONDS", 0.01)
    admin, health = Admin([WRONG]), Health()
    monkeypatch.setattr("worker.startup.topic_admin", lambda _: admin)
    metrics = Metrics()
    flags = {"tenant_from": "topic", "jobs_topic": "jobs.*"}
    settings = load_settings(flags=flags).settings
    topics = ReplyTopics(Contract.of(settings), metrics)
    admin.findings = [WRONG, Finding("error", "jobs.zeta", "cleanup.policy is compact")]
    waiting = asyncio.create_task(Startup(settings, "w", health, topics)._check_topics())
    await asyncio.sleep(0.05)
    assert not waiting.done()
    assert "zeta" not in str(health.readiness())
    assert "1 findings" in str(health.readiness())
    admin.findings = [WRONG]
    await asyncio.wait_for(waiting, 5)
    assert "topics" not in health.readiness()[1]
    assert refused(metrics) == 1


async def test_topics_that_change_later_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """One in use that went wrong is refused; one that was mended is served again."""
    monkeypatch.setattr("worker.topics.reply_topics.LOOK_SECONDS", 0.01)
    metrics, admin = Metrics(), Admin([])
    topics = ReplyTopics(Contract(), metrics)
    in_use = [f"replies.t{number}" for number in range(2 * LOOK_TOPICS)]
    make: Any = lambda: admin  # noqa: E731 - a stand-in
    watching = asyncio.create_task(topics.watch(make, lambda: in_use))
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


def test_what_the_brokers_do_not_tell_stays_as_it_was() -> None:
    """A look that learned nothing of a topic does not clear it."""
    topics = ReplyTopics(Contract(), Metrics())
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
