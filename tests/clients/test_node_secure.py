"""The client for Node.js where brokers ask who one is: TLS, a password, rights, short sessions."""

from __future__ import annotations

import secrets
import uuid
from typing import TYPE_CHECKING, Final

import pytest

from aril.worker.topics.admin import Contract, ensure_topics
from tests.clients.live_node import ask, build, connection
from tests.security.conftest import PLAN, Site
from tests.support.brokers import choice
from tests.support.rights import rights_of_a_tenant, rights_of_workers
from tests.support.secure_kafka import SESSION_SECONDS, SecureKafka

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.kafka, pytest.mark.timeout(300)]

TENANT: Final = "acme"
PASSWORD: Final = secrets.token_hex(16)
TOKENS_A_SECOND: Final = 20


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureKafka]:
    """Build the client, and run a broker as an operator would secure it."""
    build()
    if choice().kind != "apache":
        pytest.skip("needs Apache Kafka of our own: make jars, Java 17")
    users = {"worker": secrets.token_hex(16), TENANT: PASSWORD}
    with SecureKafka(tmp_path_factory.mktemp("secure"), users) as running:
        yield running


@pytest.fixture
async def site(broker: SecureKafka, tmp_path: Path) -> Site:
    """Have the topics made, and give everybody the rights that docs/operating.md lists, no more."""
    made = Site(broker, tmp_path, f"-{uuid.uuid4().hex[:6]}")
    contract = Contract(
        jobs_topic=made.names["jobs_topic"],
        dlq_topic=made.dlq,
        replies_prefix=made.names["replies_prefix"],
    )
    await ensure_topics(broker.bootstrap, contract, [TENANT], PLAN)
    await broker.allow(
        rights_of_workers("worker", made.stem, group=made.group)
        + rights_of_a_tenant(TENANT, made.stem)
    )
    return made


def at(site: Site, *arguments: str) -> list[str]:
    """Return the example's arguments for the tenant, who comes by TLS and with a password."""
    names = (site.names["jobs_topic"], site.names["replies_prefix"])
    where = connection(site.broker.door("scram"), TENANT, names)
    return [*where, "--ca", str(site.broker.ca), "--user", TENANT, *arguments]


async def test_an_answer_outlives_its_session(site: Site) -> None:
    """With no right to any group, over connections that brokers end after seconds."""
    tokens = int(2.5 * SESSION_SECONDS * TOKENS_A_SECOND)
    async with site.worker("w", site.broker.by_password("worker")):
        run = await ask(
            *at(site, "--max-tokens", str(tokens)),
            "hello",
            environ={"ARIL_SASL_PASSWORD": PASSWORD},
        )
    assert (run.process.returncode, len(run.ids())) == (0, tokens), run.err
    assert run.answer["timings"]["totalMs"] > 2_000 * SESSION_SECONDS


async def test_a_wrong_password_is_told_without_it(site: Site) -> None:
    """At once, as what it is."""
    run = await ask(*at(site), "hello", environ={"ARIL_SASL_PASSWORD": "hunter2"})
    assert (run.process.returncode, run.events) == (1, [])
    assert "BrokerUnavailable" in run.err
    assert "authentication failed" in run.err.lower()
    assert "hunter2" not in run.err


async def test_anothers_topic_is_refused(site: Site) -> None:
    """Rights are the broker's to judge: a topic that one may not read is told, not waited for."""
    run = await ask(
        *at(site, "--tenant", "zeta"), "hello", environ={"ARIL_SASL_PASSWORD": PASSWORD}
    )
    assert (run.process.returncode, run.events) == (1, [])
    assert "BrokerUnavailable" in run.err or "TopicMissing" in run.err
