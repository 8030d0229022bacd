"""Sessions of seconds, tokens and certificates that expire: answers go on as if nothing were."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import pytest

from aril.schemas import TokensRecord, decode_reply
from tests.support.secure_kafka import SESSION_SECONDS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aril import Client
    from tests.security.conftest import Site
    from tests.support.workers import WorkerProcess

pytestmark = [pytest.mark.slow, pytest.mark.kafka, pytest.mark.timeout(280)]

TOKENS: Final = 400  # of an answer, at 20 a second: five sessions
JOBS: Final = 6
GOOD_SECONDS: Final = 7.0  # of a token, and of a certificate while these are changed
EVERY_SECONDS: Final = 2.0
TROUBLE: Final = (
    "append_failed",
    "commit_failed",
    "commit_refused",
    "partitions_revoked",
    "poll_failed",
    "producer_rebuilt",
    "brokers_unreachable",
    "Failed fetch messages",  # aiokafka's words, as the next two
    "Error sending",  # to the group's coordinator
    "Unable connect",
    "a session was not renewed",
    "a session was closed with requests",
)


@asynccontextmanager
async def kept_fresh(site: Site, *names: str, certificates: bool) -> AsyncIterator[None]:
    """Give everybody new tokens, and new certificates if so, until the test is over."""
    site.renew(*names, seconds=GOOD_SECONDS if certificates else 600)

    async def renew() -> None:
        while True:
            if certificates:
                site.renew(*names, seconds=GOOD_SECONDS)
            else:
                for name in names:
                    file = site.folder / f"{name}.token"
                    site.broker.issuer.write(file, name, seconds=GOOD_SECONDS)
            await asyncio.sleep(EVERY_SECONDS)

    renewing = asyncio.create_task(renew())
    try:
        yield
    finally:
        renewing.cancel()
        await asyncio.gather(renewing, return_exceptions=True)


async def ask(client: Client, name: str) -> None:
    """Ask for a long answer; it comes whole and once."""
    sampling = {"max_tokens": TOKENS, "ignore_eos": True}
    answer = await client.complete("hello", job_id=name, sampling=sampling, timeout=90)
    assert (len(answer.token_ids), answer.resets) == (TOKENS, 0)


async def settled(*workers: WorkerProcess) -> None:
    """Wait until every worker has its share of the partitions."""
    while [await each.metric("aril_partitions") for each in workers] != [2.0] * len(workers):  # noqa: ASYNC110 - processes' state
        await asyncio.sleep(0.1)


def told(worker: WorkerProcess, *events: str) -> list[str]:
    """Return the lines of a worker's log that have one of these in them."""
    lines = worker.log.read_text().splitlines()
    return [line for line in lines if any(event in line for event in events)]


async def in_the_log(site: Site) -> Counter[tuple[str, int]]:
    """Return how often each token of each job stands in the reply log."""
    found: Counter[tuple[str, int]] = Counter()
    for record in await site.records(f"{site.names['replies_prefix']}acme"):
        reply = decode_reply(record.value)
        if isinstance(reply, TokensRecord):
            found.update((reply.job, reply.index + place) for place in range(len(reply.ids)))
    return found


@pytest.mark.parametrize("certificates", [False, True], ids=["tokens", "and-certificates"])
async def test_answers_go_on_over_sessions_that_end(site: Site, *, certificates: bool) -> None:
    """Two workers and a client whose sessions last four seconds, over five of them.

    The log has each token once, no append failed or was sent again, no partition moved.
    """
    by: dict[str, dict[str, Any]] = {
        name: site.broker.by_token(name, site.folder) for name in ("worker", "acme")
    }
    first, second = (site.worker(name, by["worker"]) for name in ("first", "second"))
    async with (
        kept_fresh(site, "worker", "acme", certificates=certificates),
        first,
        second,
        site.client("acme", by["acme"]) as acme,
    ):
        await settled(first, second)
        before = [len(told(each, "partitions_assigned", *TROUBLE)) for each in (first, second)]
        await asyncio.gather(*(ask(acme, f"job-{number}") for number in range(JOBS)))
        after = [len(told(each, "partitions_assigned", *TROUBLE)) for each in (first, second)]
        assert after == before, (told(first, *TROUBLE), told(second, *TROUBLE))
        for worker in (first, second):
            assert await worker.metric("aril_append_failures_total") == 0
            # Consumer, coordinator and producer have a connection each.
            renewed = TOKENS // 20 / SESSION_SECONDS
            assert len(told(worker, "a session was renewed")) >= 3 * (renewed - 1)
    tokens = await in_the_log(site)
    assert len(tokens) == JOBS * TOKENS
    assert set(tokens.values()) == {1}


async def test_answers_go_on_after_a_time_without_tokens(site: Site) -> None:
    """Whoever gives tokens is away for longer than the last one is good: then it all goes on."""
    worker = site.worker("w", site.broker.by_token("worker", site.folder))
    token = site.folder / "worker.token"
    site.renew("worker", seconds=600)
    site.broker.issuer.write(token, "worker", seconds=GOOD_SECONDS)
    async with worker, site.client("acme", site.broker.by_password("acme")) as acme:
        asked = [asyncio.create_task(ask(acme, f"job-{number}")) for number in range(JOBS)]
        async with asyncio.timeout(60):
            while not told(worker, "the token in it has expired"):  # noqa: ASYNC110 - a process's state
                await asyncio.sleep(0.1)
            while not told(worker, "append_failed", "commit_failed"):  # noqa: ASYNC110 - same
                await asyncio.sleep(0.1)
        site.broker.issuer.write(token, "worker", seconds=600)
        await asyncio.gather(*asked)
    tokens = await in_the_log(site)
    assert len(tokens) == JOBS * TOKENS
