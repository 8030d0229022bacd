"""The client through a real broker: the same promises, over the wire."""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import TYPE_CHECKING

import pytest

from aril import (
    BrokerUnavailable,
    Client,
    JobFailed,
    JobTimeout,
    StreamLost,
    TokensEvent,
    TopicMissing,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aril.stream import ResumeToken
    from tests.aril.conftest import Cluster
    from tests.support.fake_worker import FakeWorker

pytestmark = pytest.mark.kafka


@pytest.fixture
async def worker(cluster: Cluster) -> AsyncIterator[FakeWorker]:
    """Run a worker that answers every job with its own words."""
    async with cluster.worker() as worker:
        yield worker


@pytest.mark.usefixtures("worker")
async def test_many_jobs_at_once(cluster: Cluster) -> None:
    """Fifty jobs over one reader each get their own answer, also with tiny inboxes."""
    prompts = [f"job number {number} of many" for number in range(50)]
    async with cluster.client("acme", inbox_events=2) as client:
        answers = await asyncio.gather(*(client.complete(text, timeout=60) for text in prompts))
    assert [completion.text for completion in answers] == prompts


@pytest.mark.usefixtures("worker")
async def test_tenants_do_not_meet(cluster: Cluster) -> None:
    """Two tenants with jobs of the same id get their own answers."""
    job = uuid.uuid4().hex
    async with cluster.client("acme") as acme, cluster.client("blackbeard") as blackbeard:
        first, second = await asyncio.gather(
            acme.complete("from acme", job_id=job, timeout=60),
            blackbeard.complete("from the sea", job_id=job, timeout=60),
        )
    assert (first.text, second.text) == ("from acme", "from the sea")


@pytest.mark.usefixtures("worker")
async def test_failed_job(cluster: Cluster) -> None:
    """An error reply is raised with its code."""
    async with cluster.client("acme") as client:
        with pytest.raises(JobFailed, match="overloaded"):
            await client.complete("fail", timeout=60)


@pytest.mark.usefixtures("worker")
async def test_find_by_the_jobs_id(cluster: Cluster) -> None:
    """An answer is found by its job's id, from the log's start and from a time on."""
    job, begun = uuid.uuid4().hex, time.time()
    async with cluster.client("acme") as client:
        await client.complete("one two three", job_id=job, timeout=60)
        for since in (None, 0.0, begun - 5):
            token = await client.find(job, since=since)
            assert (await client.resume(token, timeout=60).result()).text == "one two three"
        for since in (time.time() + 60, None):
            with pytest.raises(StreamLost):
                await client.find(job if since else "nobody", since=since)


async def test_resume_in_another_client(cluster: Cluster) -> None:
    """A stream begun by one client is finished by another that is given its token."""
    async with cluster.client("acme") as client:
        stream = await client.stream("one two three four").start()
        token: ResumeToken = stream.detach()
    async with cluster.worker(), cluster.client("acme") as client:
        resumed = client.resume(str(token), timeout=60)
        first = await anext(aiter(resumed))
        assert isinstance(first, TokensEvent)
        after = resumed.detach()
        rest = await client.resume(after, timeout=60).result()
    assert first.text == "one"
    assert after.count == 1
    assert rest.text == "one two three four"


async def test_timeout_sends_a_cancel(cluster: Cluster) -> None:
    """Without a worker a job times out, and the cancel that follows reaches the jobs topic."""
    job = uuid.uuid4().hex
    async with cluster.client("acme") as client:
        with pytest.raises(JobTimeout):
            await client.complete("x", job_id=job, timeout=0.1)
    async with cluster.worker() as worker:
        while job not in worker.cancelled:  # noqa: ASYNC110 - the pytest time-out ends it
            await asyncio.sleep(0.02)


async def test_token_beyond_the_log(cluster: Cluster) -> None:
    """A token of an offset that the topic never reached, as after it was made anew, is told."""
    async with cluster.client("acme") as client:
        with pytest.raises(StreamLost):
            await client.resume("0.999999.0.0.x", timeout=60).result()


async def test_missing_topic(cluster: Cluster) -> None:
    """A tenant without a reply topic is told so at once, and the topic is not made by asking."""
    for _ in range(2):
        with pytest.raises(TopicMissing, match=r"\.replies\.nobody does not exist"):
            async with cluster.client("nobody"):
                pass


async def test_no_broker() -> None:
    """An address where nothing listens is told in one line."""
    with pytest.raises(BrokerUnavailable, match=r"no broker answers at 127\.0\.0\.1:1"):
        async with Client("127.0.0.1:1", "acme"):
            pass
