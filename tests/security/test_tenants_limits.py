"""A tenant with a user of its own reaches its own and learns nothing of others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, errors
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.commit import OffsetFetchRequest
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.protocol.offset import OffsetRequest

from aril import JobFailed, TopicMissing
from aril.connecting.settings import ConnectionSettings
from tests.support.tiny import ATTENTION, make_tiny_adapter, make_tiny_model

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aril import Client
    from aril.schemas import Job
    from tests.security.conftest import Site

pytestmark = [pytest.mark.slow, pytest.mark.kafka, pytest.mark.timeout(60)]

NOBODY: Final = "nobody"  # a tenant that does not exist
SHORT: Final = {"max_tokens": 3, "ignore_eos": True}
REFUSED: Final = "TopicAuthorizationFailedError"


def security(site: Site) -> dict[str, Any]:
    """Return acme's way to the brokers, for any program."""
    settings = ConnectionSettings.model_validate(site.broker.by_password("acme"))
    return {"bootstrap_servers": settings.bootstrap, **settings.kafka_security()}


class Acme:
    """Acme's own program, which asks a broker directly: no client of any library stands between."""

    def __init__(self, admin: AIOKafkaAdminClient) -> None:
        self._client = admin._client

    async def ask(self, request: Any) -> Any:
        """Return what the broker answers."""
        return await self._client.send(self._client.get_random_node(), request)

    async def fetch(self, topic: str) -> str:
        """Ask for the records of a topic's first partition; return the error, or what came."""
        request = FetchRequest(100, 1, 1 << 20, 0, [(topic, [(0, 0, 1 << 20)])])
        ((_, ((_, code, *_, records),)),) = (await self.ask(request)).topics
        error = errors.for_code(code)
        return error.__name__ if error is not errors.NoError else repr(records)

    async def end(self, topic: str) -> str:
        """Ask for the end of a topic's first partition; return the error, or the offset."""
        ((_, ((_, code, *_, offset),)),) = (
            await self.ask(OffsetRequest(-1, 0, [(topic, [(0, -1)])]))
        ).topics
        error = errors.for_code(code)
        return error.__name__ if error is not errors.NoError else str(offset)

    async def described(self, topic: str) -> tuple[str, int]:
        """Ask what a topic is like; return the error and how many partitions are told."""
        ((code, _, *_, partitions),) = (await self.ask(MetadataRequest([topic]))).topics
        return errors.for_code(code).__name__, len(partitions)

    async def committed(self, group: str, topic: str) -> str:
        """Ask what a group has committed of a topic; return the error, or the offset."""
        answer = await self.ask(OffsetFetchRequest(group, [(topic, [0])]))
        code = answer.error_code or answer.topics[0][1][0][-1]
        error = errors.for_code(code)
        return error.__name__ if error is not errors.NoError else str(answer.topics)


@pytest.fixture
async def acme(site: Site) -> AsyncIterator[Acme]:
    """Connect acme's program."""
    admin = AIOKafkaAdminClient(**security(site))
    await admin.start()
    try:
        yield Acme(admin)
    finally:
        await admin.close()


@pytest.fixture
async def hidden(site: Site) -> bytes:
    """Have a record in the replies of both tenants, and one on the shared topic of jobs."""
    value = b"of somebody"
    prefix = site.names["replies_prefix"]
    producer = AIOKafkaProducer(bootstrap_servers=site.broker.bootstrap)
    await producer.start()
    for topic in (f"{prefix}acme", f"{prefix}zeta", site.names["jobs_topic"]):
        await producer.send_and_wait(topic, value, partition=0)
    await producer.stop()
    return value


async def test_others_replies_cannot_be_read(site: Site, acme: Acme, hidden: bytes) -> None:
    """What is its own may be."""
    prefix = site.names["replies_prefix"]
    assert hidden.decode() in await acme.fetch(f"{prefix}acme")
    assert await acme.fetch(f"{prefix}zeta") == REFUSED


async def test_jobs_cannot_be_consumed(site: Site, acme: Acme, hidden: bytes) -> None:
    """Neither by a fetch nor in a group, be it the workers' or one of its own; nor dead letters."""
    jobs = site.names["jobs_topic"]
    assert hidden.decode() not in await acme.fetch(jobs)
    assert {await acme.fetch(each) for each in (jobs, f"jobs{site.stem}.acme", site.dlq)} == {
        REFUSED
    }
    for group in (site.group, "acme"):
        assert await acme.committed(group, jobs) == "GroupAuthorizationFailedError"
        consumer = AIOKafkaConsumer(jobs, group_id=group, **security(site))
        with pytest.raises(errors.GroupAuthorizationFailedError):
            await consumer.start()
        await consumer.stop()


async def test_no_reply_topic_can_be_written(site: Site) -> None:
    """Not its own, and of others' no error tells those that exist from those that do not."""
    prefix = site.names["replies_prefix"]
    producer = AIOKafkaProducer(**security(site))
    await producer.start()
    try:
        for tenant in ("acme", "zeta", NOBODY):
            with pytest.raises(errors.TopicAuthorizationFailedError):
                await producer.send_and_wait(f"{prefix}{tenant}", b"x", partition=0)
    finally:
        await producer.stop()
    for tenant in ("acme", "zeta"):
        assert await site.records(f"{prefix}{tenant}") == []


async def test_no_error_tells_that_a_tenant_exists(site: Site, acme: Acme) -> None:
    """To acme the topics of another are like those that are not there, in every way it can ask."""
    told = []
    for tenant in ("zeta", NOBODY):
        with pytest.raises(TopicMissing) as missing:
            async with site.client(tenant, site.broker.by_password("acme")):
                pass
        answers: list[object] = [str(missing.value).replace(tenant, "?")]
        for topic in (f"{site.names['replies_prefix']}{tenant}", f"jobs{site.stem}.{tenant}"):
            answers += [await acme.fetch(topic), await acme.end(topic), await acme.described(topic)]
        told.append(answers)
    assert told[0] == told[1]
    assert told[0][1:] == [REFUSED, REFUSED, (REFUSED, 0)] * 2


async def test_what_acme_sees_of_the_cluster(site: Site) -> None:
    """Its topic of jobs and its replies: no other tenant's name, no group."""
    admin = AIOKafkaAdminClient(**security(site))
    await admin.start()
    try:
        seen = {name for name in await admin.list_topics() if site.stem in name}
        groups = await admin.list_consumer_groups()
    finally:
        await admin.close()
    stem = site.stem
    assert seen == {f"jobs{stem}", f"jobs{stem}.acme", f"replies{stem}.acme"}
    assert groups == []


async def test_no_answer_tells_that_an_adapter_or_a_tenant_exists(site: Site) -> None:
    """A job that asks for another's adapter, or names another tenant, is told as if none were."""
    model = make_tiny_model(site.folder / "tiny")
    store = site.folder / "store"
    for tenant, name in (("acme", "terse"), ("zeta", "secret")):
        folder = store / tenant / name
        make_tiny_adapter(folder, model, rank=2, alpha=4, targets=ATTENTION, rslora=False, seed=1)
    by, own = site.broker.by_password, {"jobs_topic": f"jobs{site.stem}.*"}
    worker = site.worker(
        "w", by("worker"), tenant_from="topic", model=model, adapters=store, kv_tokens=1024, **own
    )
    worker.module = ("aril", "worker")
    async with worker, site.client("acme", by("acme"), **own) as acme:
        answer = await acme.complete("hi", adapter="terse", sampling=SHORT, timeout=120)
        assert len(answer.token_ids) == 3
        for told in (
            [await failure(acme, each, adapter=each) for each in ("secret", "no-such")],
            [await naming(acme, each) for each in ("zeta", NOBODY)],
        ):
            assert told[0] == told[1]
    assert await site.records(f"{site.names['replies_prefix']}zeta") == []


async def failure(client: Client, word: str, **options: Any) -> tuple[str, str]:
    """Return what a job of this client is told, without the word that it asked with."""
    with pytest.raises(JobFailed) as failed:
        await client.complete("hi", sampling=SHORT, timeout=60, **options)
    return failed.value.code, failed.value.message.replace(word, "?")


async def naming(client: Client, tenant: str) -> tuple[str, str]:
    """Return what a job on this client's topic is told that names another tenant."""
    honest = client._job

    def forged(prompt: str | None, options: Any) -> Job:
        return honest(prompt, options).model_copy(update={"tenant": tenant})

    client._job = forged  # type: ignore[method-assign]
    try:
        return await failure(client, tenant)
    finally:
        client._job = honest  # type: ignore[method-assign]
