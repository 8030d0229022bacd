"""The contract's topics: what is demanded, what is created, and what is found wrong."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from aril.schemas import JobError
from aril.worker.settings import load_settings
from aril.worker.topics.admin import TopicAdmin, TopicsError, ensure_topics, verify_topics
from aril.worker.topics.contract import (
    DAY_MS,
    HOUR_MS,
    MS,
    Contract,
    Finding,
    TopicPlan,
    TopicState,
    judge,
    refusals,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tests.support.brokers import Kafka

GOOD_JOBS = {
    "cleanup.policy": "delete",
    "message.timestamp.type": "LogAppendTime",
    "retention.ms": str(3 * DAY_MS),
    "segment.ms": str(HOUR_MS),
    "compression.type": "uncompressed",
}
GOOD_REPLIES = GOOD_JOBS | {"retention.ms": str(6 * DAY_MS), "retention.bytes": "-1"}


def topics(
    jobs: dict[str, str] | None = None, replies: dict[str, str] | None = None
) -> list[TopicState]:
    """Return the topics of one tenant, as the contract wants them but for these changes."""
    return [
        TopicState("jobs", 8, GOOD_JOBS | (jobs or {})),
        TopicState("jobs.dlq", 1, {}),
        TopicState("replies.acme", 8, GOOD_REPLIES | (replies or {})),
    ]


def test_good_topics_have_no_findings() -> None:
    """Topics as the contract demands are not complained about."""
    assert judge(Contract(), topics()) == []


@pytest.mark.parametrize(
    ("jobs", "replies", "level", "told"),
    [
        ({"cleanup.policy": "compact"}, {}, "error", "jobs: cleanup.policy is compact"),
        ({}, {"cleanup.policy": "compact,delete"}, "error", "replies.acme: cleanup.policy"),
        ({"message.timestamp.type": "CreateTime"}, {}, "error", "jobs: message.timestamp.type"),
        ({}, {"message.timestamp.type": "CreateTime"}, "error", "replies.acme: message"),
        ({}, {"retention.bytes": "1000000"}, "error", "replies.acme: retention.bytes"),
        ({}, {"retention.ms": str(5 * DAY_MS)}, "error", "must be at least"),
        ({"retention.ms": "-1"}, {}, "error", "must be at least -1 to outlive jobs"),
        ({"segment.ms": str(7 * DAY_MS)}, {}, "error", "must be at least"),
        ({"retention.ms": str(HOUR_MS)}, {}, "warning", "jobs may be deleted unanswered"),
        ({"compression.type": "producer"}, {}, "warning", "jobs: compression.type is producer"),
        ({}, {"compression.type": "lz4"}, "warning", "replies.acme: compression.type is lz4"),
        ({"max.message.bytes": "1000"}, {}, "warning", "jobs: max.message.bytes is 1000"),
    ],
)
def test_each_demand(jobs: dict[str, str], replies: dict[str, str], level: str, told: str) -> None:
    """Each departure from the contract is one finding, in one line that names the topic."""
    (finding,) = judge(Contract(), topics(jobs, replies))
    assert finding.level == level
    assert told in str(finding)
    assert "\n" not in str(finding)


def test_dead_letters_are_not_to_be_compacted() -> None:
    """A note has its letter's key."""
    compacted = TopicState("jobs.dlq", 3, {"cleanup.policy": "compact,delete"})
    jobs, _, replies = topics()
    (finding,) = judge(Contract(), [jobs, compacted, replies])
    assert (finding.level, finding.topic) == ("warning", "jobs.dlq")


def test_least_retention_is_enough() -> None:
    """Jobs' retention + segment + longest job + one day is enough; a millisecond less is not."""
    least = 3 * DAY_MS + HOUR_MS + 2 * DAY_MS + DAY_MS
    contract = Contract(longest_job_ms=2 * DAY_MS)
    assert judge(contract, topics(replies={"retention.ms": str(least)})) == []
    assert judge(contract, topics(replies={"retention.ms": str(least - 1)})) != []
    assert judge(contract, topics(replies={"retention.ms": "-1"})) == []


def test_no_tenants_jobs_go_where_the_dead_letters_are() -> None:
    """With a topic for each tenant, nobody would read what one called `dlq` sends to jobs.dlq."""
    contract, plan = Contract(jobs_topic="jobs.*"), TopicPlan()
    for tenants, told in (["acme"], []), (["acme", "dlq"], ["jobs.dlq has the dead letters"]):
        refused = refusals(contract, plan, contract.wanted(tenants, plan, [], replicas=1), [])
        assert [line.partition(":")[0] for line in refused] == told


def test_missing_topics() -> None:
    """A cluster without the topics: jobs and dead letters are errors, no tenant yet a warning."""
    found = judge(Contract(), [])
    assert [(finding.level, finding.topic) for finding in found] == [
        ("error", "jobs"),
        ("error", "jobs.dlq"),
        ("warning", "replies.*"),
    ]


def test_a_broker_that_cannot_tell() -> None:
    """Settings that the broker does not tell are a warning, not an error."""
    found = judge(
        Contract(),
        [TopicState("jobs", 8), TopicState("jobs.dlq", 1), TopicState("replies.acme", 8)],
    )
    assert [finding.level for finding in found] == ["warning", "warning"]


def test_dead_letters_are_not_a_tenant() -> None:
    """With a jobs topic for each tenant the dead-letter topic is not taken for one of them."""
    contract = Contract(jobs_topic="jobs.*")
    assert contract.is_jobs("jobs.acme")
    assert not contract.is_jobs("jobs.dlq")
    assert not contract.is_replies("replies.Not A Tenant")


def test_contract_of_settings() -> None:
    """Names and the longest job come from a worker's settings."""
    flags = {"jobs_topic": "j", "replies_prefix": "r.", "max_job_age": 60}
    assert Contract.of(load_settings(flags=flags).settings) == Contract(
        jobs_topic="j", dlq_topic="jobs.dlq", replies_prefix="r.", longest_job_ms=60 * MS
    )


@pytest.fixture
def contract() -> Contract:
    """Return a contract with names that no other test uses."""
    name = f"topics-{uuid.uuid4().hex[:8]}"
    return Contract(
        jobs_topic=f"{name}.jobs", dlq_topic=f"{name}.dlq", replies_prefix=f"{name}.replies."
    )


@pytest.mark.kafka
async def test_created_topics_pass(kafka: Kafka, contract: Contract) -> None:
    """What `ensure` creates is what `verify` demands; creating again changes nothing."""
    plan = TopicPlan(jobs_partitions=4, reply_partitions=2)
    created = await ensure_topics(kafka.bootstrap, contract, ["acme"], plan)
    prefix = contract.replies_prefix
    assert created == [contract.jobs_topic, contract.dlq_topic, f"{prefix}acme"]
    assert await verify_topics(kafka.bootstrap, contract) == []
    assert await ensure_topics(kafka.bootstrap, contract, ["acme"], plan) == []
    assert await ensure_topics(kafka.bootstrap, contract, ["bee"]) == [f"{prefix}bee"]
    async with TopicAdmin(kafka.bootstrap, contract) as admin:
        counts = {state.name: state.partitions for state in await admin.states()}
    assert counts[contract.jobs_topic] == 4
    assert counts[contract.dlq_topic] == 3
    assert counts[f"{prefix}acme"] == 2


@pytest.mark.kafka
async def test_no_topic_comes_into_being_by_being_asked_for(
    kafka: Kafka, contract: Contract
) -> None:
    """Nor are others looked at than those of the tenants that are named."""
    await ensure_topics(kafka.bootstrap, contract, ["acme"])
    missing = f"{contract.replies_prefix}nobody"
    async with TopicAdmin(kafka.bootstrap, contract) as admin:
        assert await admin.states([missing]) == []
        names = {state.name for state in await admin.states()}
        assert missing not in names
        assert [state.name for state in await admin.states([contract.dlq_topic])] == [
            contract.dlq_topic
        ]
        assert await admin.verify_shared() == []


@pytest.mark.kafka
async def test_some_reply_topics_are_judged_by_themselves(kafka: Kafka, contract: Contract) -> None:
    """Those that are asked for, beside the jobs that they must outlive; a missing one is untold."""
    await ensure_topics(kafka.bootstrap, contract, ["acme"])
    client = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await client.start()
    short = GOOD_REPLIES | {"retention.ms": str(HOUR_MS)}
    prefix = contract.replies_prefix
    await client.create_topics([NewTopic(f"{prefix}bee", 1, 1, topic_configs=short)])
    await client.close()
    names = [prefix + tenant for tenant in ("acme", "bee", "nobody")]
    async with TopicAdmin(kafka.bootstrap, contract) as admin:
        await admin._wait_for_leaders({*names[:2]})
        findings, told = await admin.judge_some(names)
    assert told == set(names[:2])
    errors = [
        each for each in findings if each.level == "error" and contract.is_replies(each.topic)
    ]
    assert [each.topic for each in errors] == [f"{prefix}bee"]
    assert "to outlive" in errors[0].text


@pytest.mark.kafka
async def test_with_a_reply_topic_its_own_jobs_topic_is_judged(kafka: Kafka) -> None:
    """One that appeared after the start, or changed since, is found among those in use."""
    name = uuid.uuid4().hex[:8]
    contract = Contract(
        jobs_topic=f"{name}.jobs.*", dlq_topic=f"{name}.dlq", replies_prefix=f"{name}.replies."
    )
    jobs, replies = f"{name}.jobs.acme", f"{name}.replies.acme"
    client = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await client.start()
    wrong = GOOD_JOBS | {"message.timestamp.type": "CreateTime"}
    await client.create_topics(
        [
            NewTopic(jobs, 1, 1, topic_configs=wrong),
            NewTopic(replies, 1, 1, topic_configs=GOOD_REPLIES),
        ]
    )
    await client.close()
    async with TopicAdmin(kafka.bootstrap, contract) as admin:
        await admin._wait_for_leaders({jobs, replies})
        findings, told = await admin.judge_some([replies])
    assert told == {jobs, replies}
    assert Finding(
        "error", jobs, "message.timestamp.type is CreateTime, must be LogAppendTime"
    ) in (findings)


@pytest.mark.kafka
async def test_partition_count_is_never_changed(kafka: Kafka, contract: Contract) -> None:
    """Asking for another number of partitions is refused, and nothing at all is created."""
    await ensure_topics(kafka.bootstrap, contract, ["acme"], TopicPlan(reply_partitions=2))
    for plan, why in (
        (TopicPlan(reply_partitions=4), "the number never changes"),
        (TopicPlan(jobs_partitions=9), "the number never changes"),
        (TopicPlan(dlq_partitions=1), "dlq has 3 partitions, 1 asked: kafka-topics.sh --alter"),
    ):
        with pytest.raises(TopicsError, match=why):
            await ensure_topics(kafka.bootstrap, contract, ["acme", "bee"], plan)
    async with TopicAdmin(kafka.bootstrap, contract) as admin:
        names = {state.name for state in await admin.states()}
    assert f"{contract.replies_prefix}bee" not in names


@pytest.mark.kafka
async def test_replies_outlive_existing_jobs(kafka: Kafka, contract: Contract) -> None:
    """Reply topics are created for the jobs topic that is there, not for the one we would make."""
    client = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await client.start()
    config = GOOD_JOBS | {"retention.ms": str(9 * DAY_MS)}
    await client.create_topics([NewTopic(contract.jobs_topic, 1, 1, topic_configs=config)])
    await client.close()
    await ensure_topics(kafka.bootstrap, contract, ["acme"])
    assert await verify_topics(kafka.bootstrap, contract) == []


@pytest.mark.kafka
async def test_a_topic_that_the_brokers_do_not_list_yet_is_no_missing_one(
    kafka: Kafka, contract: Contract, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody made the jobs topic a moment ago: replies are made to outlive that one's jobs."""
    client = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await client.start()
    config = GOOD_JOBS | {"retention.ms": str(9 * DAY_MS)}
    await client.create_topics([NewTopic(contract.jobs_topic, 1, 1, topic_configs=config)])
    await client.close()
    states, looks = TopicAdmin.states, list[None]()

    async def late(self: TopicAdmin, names: Iterable[str] | None = None) -> list[TopicState]:
        looks.append(None)
        return [] if len(looks) == 1 else await states(self, names)

    monkeypatch.setattr(TopicAdmin, "states", late)
    created = await ensure_topics(kafka.bootstrap, contract, ["acme"], TopicPlan(jobs_partitions=1))
    assert contract.jobs_topic not in created
    monkeypatch.setattr(TopicAdmin, "states", states)
    assert await verify_topics(kafka.bootstrap, contract) == []


@pytest.mark.kafka
async def test_an_admin_that_stays_open_asks_for_no_topics(
    kafka: Kafka, contract: Contract
) -> None:
    """When aiokafka would learn all topics anew, every few minutes, brokers alone are learned."""
    await ensure_topics(kafka.bootstrap, contract, ["acme"])
    async with TopicAdmin(kafka.bootstrap, contract) as admin:
        client = admin._admin._client
        await client.force_metadata_update()
        assert client.cluster.brokers()
        assert client.cluster.topics() == set()


@pytest.mark.kafka
async def test_many_topics_are_created_in_several_requests(
    kafka: Kafka, contract: Contract, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cluster refuses a request for thousands of topics whole; each one asks for a part."""
    create, asked = AIOKafkaAdminClient.create_topics, list[int]()

    async def counted(self: AIOKafkaAdminClient, topics: Sequence[NewTopic]) -> object:
        asked.append(len(topics))
        return await create(self, topics)

    monkeypatch.setattr(AIOKafkaAdminClient, "create_topics", counted)
    monkeypatch.setattr("aril.worker.topics.admin.CREATED_AT_ONCE", 2)
    tenants = ["acme", "bee", "cat", "dog", "eel"]
    created = await ensure_topics(kafka.bootstrap, contract, tenants)
    assert created[2:] == [f"{contract.replies_prefix}{tenant}" for tenant in tenants]
    assert asked == [2, 2, 2, 1]  # jobs and dead letters, then the replies
    assert await verify_topics(kafka.bootstrap, contract) == []


@pytest.mark.kafka
async def test_tenant_names_are_checked(kafka: Kafka, contract: Contract) -> None:
    """A tenant's name that could mean another topic is refused."""
    with pytest.raises(JobError):
        await ensure_topics(kafka.bootstrap, contract, ["../jobs"])


async def test_no_broker() -> None:
    """An address where nothing listens is one line."""
    with pytest.raises(TopicsError, match=r"^no broker answers at 127\.0\.0\.1:1$"):
        await verify_topics("127.0.0.1:1", Contract())
