"""Creating and verifying the contract's topics on a cluster, by aiokafka's admin client.

What the contract demands is in `aril.worker.topics.contract`; used by `aril topics`, by `aril
check` and by a worker as it starts.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin import NewTopic as KafkaTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import (
    InvalidTopicError,
    KafkaConnectionError,
    KafkaError,
    TopicAlreadyExistsError,
    UnknownTopicOrPartitionError,
    for_code,
)

from aril.connecting.sessions import renew_sessions
from aril.fetching.leaders import Leaders
from aril.fetching.topicwise import TopicMetadata
from aril.worker.topics.contract import (
    JUDGED_CONFIGS,
    MANY_REPLICAS,
    Contract,
    Finding,
    NewTopic,
    TopicPlan,
    TopicState,
    judge,
    refusals,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable, Iterator, Mapping, Sequence
    from types import TracebackType

__all__ = [
    "Contract",
    "Finding",
    "TopicAdmin",
    "TopicPlan",
    "TopicsError",
    "ensure_topics",
    "verify_topics",
]

Answer = TypeVar("Answer")
Item = TypeVar("Item")

REQUEST_TIMEOUT_MS: Final = 15_000
LEADER_TRIES: Final = 100
LEADER_PAUSE_SECONDS: Final = 0.1
CONFIGS_AT_ONCE: Final = 200  # topics of one request
# Likewise: eight records each in the cluster's own log, of which a request may cause 10,000.
CREATED_AT_ONCE: Final = 500


class TopicsError(Exception):
    """The brokers could not be asked, or a demand was refused; the message is one line."""


class TopicAdmin:
    """The topics of one cluster. An async context manager.

    Every method raises `TopicsError` when the brokers do not answer or refuse.
    """

    def __init__(
        self, bootstrap: str, contract: Contract, *, security: Mapping[str, Any] | None = None
    ) -> None:
        self._bootstrap = bootstrap
        self._contract = contract
        self._security = security or {}
        self._admin: Any = None

    async def __aenter__(self) -> Self:
        self._admin = AIOKafkaAdminClient(
            bootstrap_servers=self._bootstrap,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            **self._security,
        )
        client = self._admin._client  # noqa: SLF001 - aiokafka has no other way to it
        renew_sessions(client)
        TopicMetadata(client)  # or it asks for all topics now and then, as long as it is open
        try:
            await _asked(self._admin.start(), no_broker=f"no broker answers at {self._bootstrap}")
        except BaseException:
            await self._admin.close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._admin.close()

    async def states(self, names: Iterable[str] | None = None) -> list[TopicState]:
        """Return those of these topics that exist; of all that the contract speaks of, if None.

        All are asked for in one piece: with ten thousand, that is seconds of the event loop.
        """
        counts = await self._counts(names)
        configs = await self._configs(sorted(counts))
        return [TopicState(name, count, configs.get(name, {})) for name, count in counts.items()]

    async def verify(self) -> list[Finding]:
        """Return how the topics differ from the contract; empty when they are as it demands."""
        return judge(self._contract, await self.states())

    async def verify_shared(self) -> list[Finding]:
        """Return how the topics that are not one tenant's differ from the contract.

        Where each tenant has a jobs topic, which are found by their names alone, of all topics.
        """
        contract = self._contract
        if contract.jobs_topic.endswith("*"):
            return await self.verify()
        states = await self.states([contract.jobs_topic, contract.dlq_topic])
        return [each for each in judge(contract, states) if each.topic != contract.all_replies]

    async def judge_some(self, names: Iterable[str]) -> tuple[list[Finding], set[str]]:
        """Return how these topics differ from the contract, and which the brokers told of.

        With a reply topic its jobs topic is judged, as one has to outlive the other.
        """
        contract, wanted = self._contract, set(names)
        wanted |= {contract.jobs_of(name) for name in wanted if contract.is_replies(name)}
        configs = await self._configs(sorted(wanted))
        told = [TopicState(name, 0, config) for name, config in configs.items()]
        return judge(contract, told), {*filter(contract.is_of_one_tenant, configs)}

    async def ensure(self, tenants: Sequence[str], plan: TopicPlan | None = None) -> list[str]:
        """Create what is missing for these tenants; return the names of the topics created.

        Never changes a topic that exists: raises `TopicsError` when one has another number of
        partitions than the plan asks for. A tenant whose name is not valid is a `JobError`.
        """
        plan = plan or TopicPlan()
        replicas = plan.replicas or await self._replicas()
        created: list[str] = []
        # Replies last, since they outlive jobs that are there: a topic that somebody has just made
        # may be missing in a broker's list, and is in it once its creation was refused for that.
        names = [topic.name for topic in self._contract.wanted(tenants, plan, [], replicas)]
        for replies in (False, True):
            existing = await self.states(names)
            wanted = self._contract.wanted(tenants, plan, existing, replicas)
            if refused := refusals(self._contract, plan, wanted, existing):
                raise TopicsError("; ".join(refused))
            known = {topic.name for topic in existing}
            missing = [
                topic
                for topic in wanted
                if topic.name not in known
                and topic.name.startswith(self._contract.replies_prefix) is replies
            ]
            if missing:
                created += await self._create(missing, replicas)
        return created

    async def _replicas(self) -> int:
        cluster = await _asked(self._admin.describe_cluster())
        return min(MANY_REPLICAS, len(cluster["brokers"]))

    async def _create(self, topics: Sequence[NewTopic], replicas: int) -> list[str]:
        created: list[str] = []
        for some in _chunks(topics, CREATED_AT_ONCE):
            created += await self._create_some(some, replicas)
        return created

    async def _create_some(self, topics: Sequence[NewTopic], replicas: int) -> list[str]:
        asked = [
            KafkaTopic(topic.name, topic.partitions, replicas, topic_configs=dict(topic.config))
            for topic in topics
        ]
        reply = await _asked(self._admin.create_topics(asked))
        for name, code, *message in reply.topic_errors:
            if code not in (0, TopicAlreadyExistsError.errno):
                told = message[0] if message and message[0] else for_code(code).__name__
                raise TopicsError(f"{name} could not be created: {told}")
        await self._wait_for_leaders({topic.name for topic in topics})
        return [name for name, code, *_ in reply.topic_errors if code == 0]

    async def _wait_for_leaders(self, names: set[str]) -> None:
        for _ in range(LEADER_TRIES):
            found = await self._leaders_of(names)
            if found.keys() == names and all(
                node >= 0 for partitions in found.values() for node in partitions.values()
            ):
                return
            await asyncio.sleep(LEADER_PAUSE_SECONDS)
        raise TopicsError(f"no leaders yet for {', '.join(sorted(names))}; try again")

    async def _counts(self, names: Iterable[str] | None) -> dict[str, int]:
        if names is not None:
            found = await self._leaders_of(names)
            return {name: len(partitions) for name, partitions in found.items()}
        return {
            topic["topic"]: len(topic["partitions"])
            for topic in await _asked(self._admin.describe_topics())
            if self._contract.concerns(topic["topic"])
        }

    async def _leaders_of(self, names: Iterable[str]) -> dict[str, Mapping[int, int]]:
        """Return the leader of each partition of the topics that exist, -1 for none.

        None is created by being asked for, as aiokafka's own question would have it.
        """
        found: dict[str, Mapping[int, int]] = {}

        async def look(name: str) -> None:
            with contextlib.suppress(UnknownTopicOrPartitionError, InvalidTopicError):
                await leaders.learn(name)
                found[name] = leaders.partitions(name) or {}

        leaders = Leaders(self._admin._client)  # noqa: SLF001 - aiokafka has no other way to it
        try:
            await _asked(asyncio.gather(*map(look, names)))
        finally:
            await leaders.close()
        return found

    async def _configs(self, names: Sequence[str]) -> dict[str, dict[str, str]]:
        """Return what the brokers tell of these topics' settings, as far as any is judged by."""
        try:
            replies = [
                reply
                for some in _chunks(names, CONFIGS_AT_ONCE)
                for reply in await _asked(self._admin.describe_configs([*map(_resource, some)]))
            ]
        except TopicsError as error:
            # Judged as untold: a broker that cannot say how a topic is set up may still be right.
            logging.getLogger(__name__).info("topic configurations are not told: %s", error)
            return {}
        return {
            resource[3]: {entry[0]: entry[1] for entry in resource[4] if entry[1] is not None}
            for reply in replies
            for resource in reply.resources
            if resource[0] == 0
        }


def _resource(topic: str) -> ConfigResource:
    return ConfigResource(ConfigResourceType.TOPIC, topic, dict.fromkeys(JUDGED_CONFIGS))


def _chunks(whole: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    return (whole[at : at + size] for at in range(0, len(whole), size))


async def _asked(call: Awaitable[Answer], *, no_broker: str = "no broker answers") -> Answer:
    try:
        return await call
    except KafkaConnectionError as error:
        raise TopicsError(no_broker) from error
    except (KafkaError, OSError, TimeoutError) as error:
        raise TopicsError(" ".join(str(error).split()) or "no answer in time") from error


async def verify_topics(
    bootstrap: str, contract: Contract, *, security: Mapping[str, Any] | None = None
) -> list[Finding]:
    """Connect and return how the topics differ from the contract."""
    async with TopicAdmin(bootstrap, contract, security=security) as admin:
        return await admin.verify()


async def ensure_topics(
    bootstrap: str,
    contract: Contract,
    tenants: Sequence[str],
    plan: TopicPlan | None = None,
    *,
    security: Mapping[str, Any] | None = None,
) -> list[str]:
    """Connect and create what is missing for these tenants; return the names created."""
    async with TopicAdmin(bootstrap, contract, security=security) as admin:
        return await admin.ensure(tenants, plan)
