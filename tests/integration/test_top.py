"""`aril top` at a real worker."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import TYPE_CHECKING

import pytest

from aril.schemas import Sampling

if TYPE_CHECKING:
    from tests.integration.conftest import Site

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(240)]

SHORT = Sampling(max_tokens=4, temperature=0.0, ignore_eos=True).model_dump(exclude_defaults=True)


async def test_what_a_worker_does_is_shown(site: Site) -> None:
    """Its partitions, its tenant, its adapter, by the names that it has for them."""
    async with site.worker("one") as worker, site.client("acme") as client:
        await client.complete("hello", adapter="terse", sampling=SHORT, timeout=60)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "aril", "top", "--once", "--json", "--interval", "0.5", worker.url),
            stdout=asyncio.subprocess.PIPE,
            env=os.environ,
        )
        out, _ = await process.communicate()
    assert process.returncode == 0
    told = json.loads(out)
    (row,) = told["workers"]
    assert (row["state"], row["partitions"], row["running"]) == ("ready", 8, 0)
    assert None not in {row["kv"], row["lag"], row["tokens"], row["takeovers"]}
    assert next(each["name"] for each in told["tenants"]) == "acme"
    (adapter,) = [each for each in told["adapters"] if each["name"] == "acme/terse"]
    assert adapter["device"] + adapter["host"] >= 1
