"""A tenant with a user of its own reaches its own and learns nothing of others."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition, errors
from aiokafka.admin import AIOKafkaAdminClient

from aril import JobFailed, TopicMissing
from connecting.settings import ConnectionSettings
from tests.support.tiny import ATTENTION, make_tiny_adapter, make_tiny_model

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aril import Client
    from schemas import Job
    from tests.security.conftest import Site

pytestmark = [pytest.mark.slow, pytest.mark.kafka, pytest.mark.timeout(280)]

NOBODY: Final = "nobody"  # a tenant that does not exist
SHORT: Final = {"max_tokens": 3, "ignore_eos": True}
SECONDS: Final = 5_000


def security(site: Site) -> dict[str, Any]:
    """Return acme's way to the brokers, for any program."""
    settings = ConnectionSettings.model_validate(site.broker.by_password("acme"))
    return {"bootstrap_servers": settings.bootstrap, **settings.kafka_security()}


@asynccontextmanager
async def reader(site: Site, **options: Any) -> AsyncIterator[AIOKafkaConsumer]:
    """Start a consumer of acme's."""
    consumer = AIOKafkaConsumer(**security(site), **options)
    await consumer.start()
    try:
        yield consumer
    finally:
        await consumer.stop()


async def error_of(call: Any) -> str:
    """Return what a call ends in, without the topic's own name."""
    with pytest.raises(errors.KafkaError) as caught:
        await call
    return type(caught.value).__name__


@pytest.fixture
async def secret(site: Site) -> str:
    """Have an answer in the replies of zeta, and a job of it on the shared topic."""
    producer = AIOKafkaProducer(bootstrap_servers=site.broker.bootstrap)
    await producer.start()
    topic = f"{site.names['replies_prefix']}zeta"
    await producer.send_and_wait(topic, b"of zeta", partition=0)
    await producer.send_and_wait(site.names["jobs_topic"], b"of zeta", partition=0)
    await producer.stop()
    return topic


async def read(site: Site, topic: str) -> list[bytes]:
    """Read the first partition of a topic as acme; raises what it ends in."""
    async with reader(site, auto_offset_reset="earliest") as consumer:
        where = TopicPartition(topic, 0)
        consumer.assign([where])
        consumer.seek(where, 0)
        while True:
            batches = await consumer.getmany(where, timeout_ms=SECONDS)
            if batches:
                return [record.value for record in batches[where]]


async def test_others_replies_cannot_be_read(site: Site, secret: str) -> None:
    """By an assignment and an offset, as our own client reads; what may be read is."""
    assert await error_of(read(site, secret)) == "TopicAuthorizationFailedError"
    own = f"{site.names['replies_prefix']}acme"
    producer = AIOKafkaProducer(bootstrap_servers=site.broker.bootstrap)
    await producer.start()
    await producer.send_and_wait(own, b"of acme", partition=0)
    await producer.stop()
    assert await read(site, own) == [b"of acme"]


@pytest.mark.usefixtures("secret")
async def test_jobs_cannot_be_consumed(site: Site) -> None:
    """Neither by an assignment nor in a group, be it the workers' or one of its own."""
    jobs = site.names["jobs_topic"]
    assert await error_of(read(site, jobs)) == "TopicAuthorizationFailedError"
    for group in (site.group, "acme"):
        consumer = AIOKafkaConsumer(jobs, group_id=group, **security(site))
        failure = await error_of(consumer.start())
        await consumer.stop()
        assert failure == "GroupAuthorizationFailedError"


async def test_no_reply_topic_can_be_written(site: Site) -> None:
    """Not its own, and of others' no error tells those that exist from those that do not."""
    producer = AIOKafkaProducer(**security(site), request_timeout_ms=SECONDS)
    await producer.start()
    prefix = site.names["replies_prefix"]
    try:
        found = {
            tenant: await error_of(producer.send_and_wait(f"{prefix}{tenant}", b"x", partition=0))
            for tenant in ("acme", "zeta", NOBODY)
        }
    finally:
        await producer.stop()
    assert found == dict.fromkeys(found, "TopicAuthorizationFailedError")
    assert await site.records(f"{prefix}acme", 2) == []
    assert await site.records(f"{prefix}zeta", 2) == []


async def test_no_error_tells_that_a_tenant_exists(site: Site) -> None:
    """To acme the reply topic of another is like one that is not there, in every way it can ask."""
    prefix = site.names["replies_prefix"]
    told = []
    for tenant in ("zeta", NOBODY):
        with pytest.raises(TopicMissing) as missing:
            async with site.client(tenant, site.broker.by_password("acme")):
                pass
        async with reader(site) as consumer:
            where = TopicPartition(f"{prefix}{tenant}", 0)
            told.append(
                [
                    str(missing.value).replace(tenant, "?"),
                    await error_of(read(site, f"{prefix}{tenant}")),
                    await error_of(asyncio.wait_for(consumer.end_offsets([where]), 30)),
                ]
            )
    assert told[0] == told[1]


async def test_what_acme_sees_of_the_cluster(site: Site) -> None:
    """Its topic of jobs and its replies: the names of no other tenant, no group, no configuration."""
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
        assert await failure(acme, adapter="secret") == await failure(acme, adapter="no-such")
        told = [await _named(acme, tenant) for tenant in ("zeta", NOBODY)]
        assert told[0] == told[1]
    assert await site.records(f"{site.names['replies_prefix']}zeta", 2) == []


async def failure(client: Client, **options: Any) -> tuple[str, str]:
    """Return what a job of this client is told."""
    with pytest.raises(JobFailed) as failed:
        await client.complete("hi", sampling=SHORT, timeout=60, **options)
    return failed.value.code, failed.value.message


async def _named(client: Client, tenant: str) -> tuple[str, str]:
    """Return what becomes of a job on this client's topic that names another tenant."""
    honest = client._job

    def forged(prompt: str | None, options: Any) -> Job:
        return honest(prompt, options).model_copy(update={"tenant": tenant})

    client._job = forged  # type: ignore[method-assign]
    try:
        return await failure(client)
    finally:
        client._job = honest  # type: ignore[method-assign]
