"""Who runs `aril topics` and `aril dlq` does it with the rights that docs/operating.md lists."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from aril.schemas import Job, Sampling, encode_request
from aril.worker.topics.admin import Contract, ensure_topics
from tests.security.conftest import PLAN
from tests.support.rights import table
from tests.support.secure_kafka import Kind, Operation, Rule

if TYPE_CHECKING:
    from tests.security.conftest import Site

pytestmark = [pytest.mark.slow, pytest.mark.kafka, pytest.mark.timeout(240)]


async def run(site: Site, *arguments: str) -> tuple[int | None, str]:
    """Run a command as the operator; return its exit code and what it says."""
    settings = site.broker.by_password("operator") | site.names | {"dlq_topic": site.dlq}
    environ = {f"ARIL_{name.upper()}": str(value) for name, value in settings.items()}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "aril", *arguments),
        env=os.environ | environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    told, _ = await process.communicate()
    return process.returncode, told.decode()


async def allow(site: Site, who: str, *places: tuple[str, bool]) -> None:
    """Give the operator what the page lists for somebody, on topics, or on prefixes of them."""
    (row,) = [row for row in table() if row.who == who]
    rules = [
        Rule("operator", Kind.TOPIC, name, Operation[operation.upper()], prefixed)
        for name, prefixed in places
        for operation in row.operations.split(", ")
    ]
    await site.broker.allow(rules)


async def test_topics(site: Site) -> None:
    """They are made and verified by who may, by prefix; before that nothing is."""
    newcomer = f"{site.names['replies_prefix']}newcomer"
    code, told = await run(site, "topics", "newcomer")
    assert (code, newcomer in told) == (1, False), told
    await allow(
        site,
        "whoever runs `aril topics`",
        (f"jobs{site.stem}", True),
        (f"replies{site.stem}", True),
    )
    code, told = await run(site, "topics", "newcomer")
    assert (code, newcomer in told) == (0, True), told


async def test_dead_letters(site: Site) -> None:
    """Listed, replayed and purged, each by who may."""
    prefix = site.names["replies_prefix"]
    job = Job(id="late", tenant="late", prompt="hello", sampling=Sampling(max_tokens=3))
    async with (
        site.worker("w", site.broker.by_password("worker")),
        site.client("acme", site.broker.by_password("acme")) as acme,
    ):
        await site.append(acme, b"late", encode_request(job))  # tenant_from=field
        assert await site.letters(1) == [encode_request(job)]
        assert (await run(site, "dlq", "ls"))[0] == 1
        await allow(site, "whoever runs `aril dlq`", (site.dlq, False), (prefix, True))
        code, told = await run(site, "dlq", "ls")
        assert (code, "late" in told) == (0, True), told
        contract = Contract(
            jobs_topic=site.names["jobs_topic"], dlq_topic=site.dlq, replies_prefix=prefix
        )
        await ensure_topics(site.broker.bootstrap, contract, ["late"], PLAN)
        assert (await run(site, "dlq", "replay", "--all", "--yes"))[0] == 1
        await allow(
            site, "… and its `replay`", (site.names["jobs_topic"], False), (site.dlq, False)
        )
        code, told = await run(site, "dlq", "replay", "--all", "--yes")
        assert code == 0, told
        await site.committed(2)
    assert {record.key for record in await site.records(f"{prefix}late")} == {b"late"}
    assert (await run(site, "dlq", "purge", "--all", "--yes"))[0] == 1
    await allow(site, "… and its `purge`", (site.dlq, False))
    code, told = await run(site, "dlq", "purge", "--all", "--yes")
    assert code == 0, told
    assert await site.records(site.dlq) == []
