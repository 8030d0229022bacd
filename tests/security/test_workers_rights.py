"""A worker does all of its work with the rights that docs/operating.md lists."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Final

import pytest

from aril.schemas import Job, Sampling, encode_request
from tests.security.conftest import TENANTS
from tests.support.secure_kafka import Kind, Operation, Rule

if TYPE_CHECKING:
    from aril import Client
    from tests.security.conftest import Site
    from tests.support.workers import WorkerProcess

pytestmark = [pytest.mark.slow, pytest.mark.kafka, pytest.mark.timeout(280)]

LONG: Final = {"max_tokens": 80, "ignore_eos": True}


async def ask(client: Client, name: str) -> None:
    """Ask for a long answer; it comes whole."""
    answer = await client.complete("hello", job_id=name, sampling=LONG, timeout=200)
    assert (len(answer.token_ids), answer.resets) == (80, 0)


def refused(worker: WorkerProcess) -> list[str]:
    """Return what brokers refused a worker, by its log."""
    told = worker.log.read_text().splitlines()
    return [line for line in told if "AuthorizationFailed" in line or "commit_refused" in line]


async def test_all_of_a_workers_work(site: Site) -> None:
    """Jobs are answered, taken over, committed and put aside, and nothing of it is refused."""
    by = site.broker.by_password
    first = site.worker("first", by("worker"))
    second = site.worker("second", by("worker"))
    clients = [site.client(tenant, by(tenant)) for tenant in TENANTS]
    async with first, clients[0], clients[1]:
        asked = [
            asyncio.create_task(ask(client, f"job-{number}"))
            for number in range(6)
            for client in clients
        ]
        while await first.metric("aril_running_jobs") < 6:  # noqa: ASYNC110 - a process's state
            await asyncio.sleep(0.1)
        await site.append(clients[0], b"rubbish", b"\xc1")
        first.signal(signal.SIGKILL)
        async with second:
            await asyncio.gather(*asked)
            assert await site.letters(1) == [b"\xc1"]
            await site.committed(len(asked) + 1)
            assert await second.metric("aril_claims_total") > 0
        assert "a session was renewed" in second.log.read_text()
    assert refused(first) + refused(second) == []


async def test_a_topic_for_each_tenant(site: Site) -> None:
    """The same where tenants are told apart by the topic that their jobs come on."""
    by, own = site.broker.by_password, {"jobs_topic": f"jobs{site.stem}.*"}
    worker = site.worker("w", by("worker"), tenant_from="topic", **own)
    async with worker, site.client("acme", by("acme"), **own) as acme:
        await ask(acme, "job")
        await site.committed(1)
    assert refused(worker) == []


async def test_create_is_needed_to_create_reply_topics(site: Site) -> None:
    """Without it a job of a tenant that has none is put aside; with it the topic is made."""
    by = site.broker.by_password
    worker = site.worker("w", by("worker"), create_topics=1)
    short = Sampling(max_tokens=3)
    jobs = [
        Job(id=f"of-{each}", tenant=each, prompt="hello", sampling=short)
        for each in ("none", "later")
    ]
    async with worker, site.client("acme", by("acme")) as acme:
        await site.append(acme, b"of-none", encode_request(jobs[0]))  # tenant_from=field
        assert await site.letters(1) == [encode_request(jobs[0])]
        prefix = site.names["replies_prefix"]
        await site.broker.allow([Rule("worker", Kind.TOPIC, prefix, Operation.CREATE, True)])  # noqa: FBT003 - prefixed
        await site.append(acme, b"of-later", encode_request(jobs[1]))
        await site.committed(2)
        answered = await site.records(f"{prefix}later")
    assert {record.key for record in answered} == {b"of-later"}
    assert len(await site.records(site.dlq)) == 1
