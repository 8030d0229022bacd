"""A real broker's topics, a worker with a tiny model and a gateway: for clients of other people."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import aiohttp

from aril.gateway.keys import hash_of
from aril.worker.topics.admin import Contract, TopicPlan, ensure_topics
from tests.support.gateway_process import GatewayProcess
from tests.support.tiny import ATTENTION, make_tiny_adapter, make_tiny_model
from tests.support.workers import WorkerProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.brokers import Kafka

KEY: Final = "aril-key-of-acme"
SLOW_KEY: Final = "aril-key-with-limits"
TENANT: Final = "acme"


@dataclass(frozen=True)
class Stand:
    """What stands, and what more of it may be started."""

    kafka: Kafka
    folder: Path
    contract: Contract
    gateway: GatewayProcess

    @property
    def url(self) -> str:
        """Where the gateway is."""
        return self.gateway.url

    async def post(self, path: str) -> int:
        """Post nothing to a path; return the status."""
        headers = {"authorization": f"Bearer {KEY}"}
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.post(self.url + path) as answer,
        ):
            return answer.status

    async def left(self) -> int:
        """Return how many answers were left by their readers before the end."""
        _, page = await self.gateway.probe("/metrics")
        series = 'aril_gateway_answers_total{begun="new",ended="left"} '
        found = [line for line in page.splitlines() if line.startswith(series)]
        return int(float(found[0].removeprefix(series))) if found else 0


def make_store(folder: Path) -> tuple[Path, Path]:
    """Make a tiny model and a store of an adapter of acme and a shared one."""
    model = make_tiny_model(folder / "tiny")
    for owner, name, rank in ((TENANT, "terse", 4), ("shared", "house", 2)):
        make_tiny_adapter(
            folder / "store" / owner / name, model, rank=rank, targets=ATTENTION, seed=rank
        )
    return model, folder / "store"


def make_topics(kafka: Kafka) -> Contract:
    """Create topics that nobody else uses."""
    stem = uuid.uuid4().hex[:6]
    contract = Contract(
        jobs_topic=f"jobs-{stem}", dlq_topic=f"dlq-{stem}", replies_prefix=f"replies-{stem}."
    )
    plan = TopicPlan(jobs_partitions=4, reply_partitions=4)
    asyncio.run(ensure_topics(kafka.bootstrap, contract, [TENANT], plan))
    return contract


def worker_of(
    kafka: Kafka, contract: Contract, folder: Path, name: str = "worker", **settings: object
) -> WorkerProcess:
    """Return a worker of these topics, not started."""
    told = {
        "bootstrap": kafka.bootstrap,
        "group": f"g-{contract.jobs_topic}",
        "jobs_topic": contract.jobs_topic,
        "dlq_topic": contract.dlq_topic,
        "replies_prefix": contract.replies_prefix,
        "model": folder / "tiny",
        "adapters": folder / "store",
        "max_rows": 8,
        "kv_tokens": 8_192,
        "session_timeout_ms": 6_000,
    }
    return WorkerProcess(name, folder, **(told | settings))


def gateway_of(
    kafka: Kafka, contract: Contract, folder: Path, name: str = "gateway", port: int | None = None
) -> GatewayProcess:
    """Return a gateway of these topics, not started."""
    keys = folder / "keys.toml"
    keys.write_text(
        f'[[keys]]\nname = "web"\ntenant = "{TENANT}"\nsha256 = "{hash_of(KEY)}"\n'
        f'[[keys]]\nname = "slow"\ntenant = "{TENANT}"\nsha256 = "{hash_of(SLOW_KEY)}"\n'
        "requests_per_second = 1\n"
    )
    return GatewayProcess(
        name,
        folder,
        port=port,
        bootstrap=kafka.bootstrap,
        jobs_topic=contract.jobs_topic,
        replies_prefix=contract.replies_prefix,
        gateway_keys=keys,
        gateway_adapters=folder / "store",
        gateway_model="tiny",
        gateway_access_log=True,
        gateway_drain_seconds=1,
        gateway_batches=folder / "kept",
    )


@contextlib.contextmanager
def standing(kafka: Kafka, folder: Path) -> Iterator[Stand]:
    """Run one worker and one gateway."""
    make_store(folder)
    contract = make_topics(kafka)
    gateway = gateway_of(kafka, contract, folder)
    with worker_of(kafka, contract, folder).standing(), gateway.standing():
        yield Stand(kafka, folder, contract, gateway)
