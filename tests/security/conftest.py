"""One secured broker for all tests here; topics of two tenants, and who may do what, for each."""

from __future__ import annotations

import asyncio
import secrets
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pytest

from aril import Client
from aril.connecting.settings import ConnectionSettings
from aril.environment import options_of
from aril.fetching.place import Place
from aril.worker.topics.admin import Contract, TopicPlan, ensure_topics
from tests.support.brokers import choice
from tests.support.rights import rights_of_a_tenant, rights_of_workers
from tests.support.secure_kafka import SecureKafka
from tests.support.topic_records import read_topic
from tests.support.workers import WorkerProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TENANTS: Final = ("acme", "zeta")
PLAN: Final = TopicPlan(jobs_partitions=4, reply_partitions=2)
STEP_SECONDS: Final = "0.05"


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureKafka]:
    """Run one broker, as an operator would secure it, for all tests here."""
    if choice().kind != "apache":
        pytest.skip("needs Apache Kafka of our own: make jars, Java 17")
    users = {name: secrets.token_hex(16) for name in ("worker", "operator", *TENANTS)}
    with SecureKafka(tmp_path_factory.mktemp("secure"), users) as running:
        yield running


@dataclass(frozen=True)
class Site:
    """The broker, topics, a group and a folder for one test."""

    broker: SecureKafka
    folder: Path
    stem: str

    @property
    def names(self) -> dict[str, str]:
        """The settings that name the topics, where tenants share one for jobs."""
        return {
            "jobs_topic": f"jobs{self.stem}",
            "replies_prefix": f"replies{self.stem}.",
        }

    @property
    def dlq(self) -> str:
        """The topic of dead letters."""
        return f"jobs{self.stem}.dlq"

    @property
    def group(self) -> str:
        """The workers' group."""
        return f"workers{self.stem}"

    def worker(self, name: str, connection: dict[str, Any], **settings: object) -> WorkerProcess:
        """Return a worker without a model, 20 tokens a second for each of its jobs."""
        kept = {"session_timeout_ms": 6_000, "log_level": "debug", "max_rows": 32}
        names = {"group": self.group, "dlq_topic": self.dlq} | self.names
        worker = WorkerProcess(name, self.folder, **kept | names | connection | settings)
        worker.module = ("tests.support.paced_worker", STEP_SECONDS)
        return worker

    def client(self, tenant: str, connection: dict[str, Any], **settings: object) -> Client:
        """Return a tenant's client that connects so."""
        made = ConnectionSettings.model_validate(self.names | connection | settings)
        return Client(**options_of(made, tenant))

    async def append(self, client: Client, key: bytes, value: bytes) -> None:
        """Append to the jobs topic as any program may that has this client's rights."""
        await client.link.transport.send(Place(client.jobs_topic, 0), key, value)

    def renew(self, *names: str, seconds: float) -> None:
        """Give everybody named a certificate and a token that are good for so long."""
        for name in names:
            self.broker.authority.issue(name, seconds=seconds).write(self.folder, name)
            self.broker.issuer.write(self.folder / f"{name}.token", name, seconds=seconds)

    async def records(self, topic: str) -> list[Any]:
        """Read a topic by the plain door."""
        return await read_topic(self.broker.bootstrap, topic)

    async def committed(self, jobs: int) -> None:
        """Wait until as many jobs are committed."""
        async with asyncio.timeout(60), self.broker.hand() as hand:
            while True:
                found = await hand.list_consumer_group_offsets(self.group)
                if sum(each.offset for each in found.values() if each.offset > 0) == jobs:
                    return
                await asyncio.sleep(0.1)

    async def letters(self, count: int) -> list[bytes]:
        """Wait for so many dead letters; return what was put aside."""
        async with asyncio.timeout(60):
            while len(found := await self.records(self.dlq)) < count:  # noqa: ASYNC110 - a process's work
                await asyncio.sleep(0.1)
        return [record.value for record in found]


@pytest.fixture
async def site(broker: SecureKafka, tmp_path: Path) -> Site:
    """Have the topics made, and give everybody the rights that docs/operating.md lists, no more."""
    made = Site(broker, tmp_path, f"-{uuid.uuid4().hex[:6]}")
    for jobs in (f"jobs{made.stem}", f"jobs{made.stem}.*"):
        contract = Contract(
            jobs_topic=jobs, dlq_topic=made.dlq, replies_prefix=made.names["replies_prefix"]
        )
        await ensure_topics(broker.bootstrap, contract, TENANTS, PLAN)
    rules = rights_of_workers("worker", made.stem, group=made.group)
    for tenant in TENANTS:
        rules += rights_of_a_tenant(tenant, made.stem)
    await broker.allow(rules)
    return made
