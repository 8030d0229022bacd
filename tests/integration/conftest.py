"""A site for each test: topics of its own, a tiny model, a store of tiny adapters."""

from __future__ import annotations

import uuid
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from aril import Client
from aril.schemas import ReplyRecord, decode_conflict, decode_redirect, decode_reply
from aril.worker.topics.admin import Contract, TopicPlan, ensure_topics
from tests.support.group_protocols import require_protocol
from tests.support.tiny import ALL_LINEARS, ATTENTION, make_tiny_adapter, make_tiny_model
from tests.support.topic_records import read_topic
from tests.support.workers import WorkerProcess

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.brokers import Kafka

# Each tenant with the adapter its jobs ask for.
TENANTS = {"acme": "terse", "blackbeard": "pirate", "ledgerly": "house", "visitor": None}


@dataclass(frozen=True)
class Site:
    """A cluster's topics, a model and a store, for one test."""

    kafka: Kafka
    folder: Path
    model: Path
    store: Path
    contract: Contract
    protocol: str = "classic"  # of the workers' group

    def worker(self, name: str, **settings: object) -> WorkerProcess:
        """Return a worker of this site's group."""
        classic = self.protocol == "classic"
        session = {"session_timeout_ms": 6_000} if classic else {}  # else the broker's
        return WorkerProcess(
            name,
            self.folder,
            **{
                "bootstrap": self.kafka.bootstrap,
                "group": f"g-{self.contract.jobs_topic}",
                "jobs_topic": self.contract.jobs_topic,
                "dlq_topic": self.contract.dlq_topic,
                "replies_prefix": self.contract.replies_prefix,
                "model": self.model,
                "adapters": self.store,
                "group_protocol": self.protocol,
                "max_rows": 8,
                "kv_tokens": 4096,
            }
            | session
            | settings,
        )

    def client(self, tenant: str) -> Client:
        """Return a tenant's client."""
        return Client(
            self.kafka.bootstrap,
            tenant,
            jobs_topic=self.contract.jobs_topic,
            replies_prefix=self.contract.replies_prefix,
        )

    async def logs(self, tenant: str) -> dict[str, list[ReplyRecord]]:
        """Read a tenant's whole reply log; records by job, in log order, without notices."""
        topic, found = (
            self.contract.replies_prefix + tenant,
            defaultdict[str, list[ReplyRecord]](list),
        )
        for record in await read_topic(self.kafka.bootstrap, topic):
            reply, job = decode_reply(record.value), record.key.decode()
            if reply is None:
                notices = (decode_redirect, decode_conflict)
                assert any(each(record.value, job) is not None for each in notices)
                continue
            assert record.key == reply.job.encode()
            found[reply.job].append(reply)
        return found


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Make a tiny model and three adapters of different rank and reach."""
    folder = tmp_path_factory.mktemp("site")
    backbone = make_tiny_model(folder / "tiny")
    for tenant, name, rank, targets in (
        ("acme", "terse", 4, ATTENTION),
        ("blackbeard", "pirate", 8, ALL_LINEARS),
        ("shared", "house", 2, ALL_LINEARS),
    ):
        make_tiny_adapter(
            folder / "store" / tenant / name,
            backbone,
            rank=rank,
            alpha=2 * rank,
            targets=targets,
            rslora=tenant == "shared",
            seed=rank,
        )
    return backbone, folder / "store"


@pytest.fixture
async def site(kafka: Kafka, tmp_path: Path, model: tuple[Path, Path], group_protocol: str) -> Site:
    """Create topics of its own for a test."""
    require_protocol(kafka, group_protocol)
    stem = uuid.uuid4().hex[:6]
    contract = Contract(
        jobs_topic=f"jobs-{stem}", dlq_topic=f"dlq-{stem}", replies_prefix=f"replies-{stem}."
    )
    await ensure_topics(
        kafka.bootstrap, contract, list(TENANTS), TopicPlan(jobs_partitions=8, reply_partitions=8)
    )
    return Site(kafka, tmp_path, *model, contract, group_protocol)
