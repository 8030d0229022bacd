"""Creating and verifying the contract's topics on a cluster, by aiokafka's admin client.

What the contract demands is in `aril.worker.topics.contract`; used by `aril topics`, by `aril
check` and by a worker as it starts.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin import NewTopic as KafkaTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaConnectionError, KafkaError, TopicAlreadyExistsError, for_code

from aril.connecting.sessions import renew_sessions
from aril.worker.topics.contract import (
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
    from collections.abc import Awaitable, Iterable, Mapping, Sequence
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

REQUEST_TIMEOUT_MS: Final = 15_000
LEADER_TRIES: Final = 100
LEADER_PAUSE_SECONDS: Final = 0.1


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
        renew_sessions(self._admin._client)  # noqa: SLF001 - aiokafka has no other way to it
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

    async def states(self) -> list[TopicState]:
        """Return every topic of the cluster that the contract speaks of."""
        counts = {
            topic["topic"]: len(topic["partitions"])
            for topic in await _asked(self._admin.describe_topics())
            if self._contract.concerns(topic["topic"])
        }
        configs = await self._configs(sorted(counts))
        return [TopicState(name, count, configs.get(name, {})) for name, count in counts.items()]

    async def verify(self) -> list[Finding]:
        """Return how the topics differ from the contract; empty when they are as it demands."""
        return judge(self._contract, await self.states())

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
        for replies in (False, True):
            existing = await self.states()
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
            led = {
                topic["topic"]
                for topic in await _asked(self._admin.describe_topics())
                if all(partition["leader"] >= 0 for partition in topic["partitions"])
            }
            if names <= led:
                return
            await asyncio.sleep(LEADER_PAUSE_SECONDS)
        raise TopicsError(f"no leaders yet for {', '.join(sorted(names))}; try again")

    async def _configs(self, names: Sequence[str]) -> dict[str, dict[str, str]]:
        if not names:
            return {}
        resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
        try:
            replies = await _asked(self._admin.describe_configs(resources))
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
