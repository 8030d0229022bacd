"""Whose beginnings a job may find in the cache: told to the engine with each request."""

from __future__ import annotations

import pytest

from aril.schemas import Job
from tests.support.harness import Harness


@pytest.mark.parametrize(("sharing", "shared"), [("tenant", False), ("acme,zeta", True)])
async def test_the_operator_says_who_shares(sharing: str, shared: bool) -> None:
    """Jobs of one tenant have one salt; those of two only where their operator lets them share."""
    async with Harness(prefix_sharing=sharing) as harness:
        for tenant, name in (("acme", "one"), ("acme", "two"), ("zeta", "three")):
            harness.send(Job(id=name, tenant=tenant, prompt=name))
        await harness.until(lambda: len(harness.running) == 3)
        one, two, three = (
            harness.engine.requests[harness.key_of(name)].salt for name in ("one", "two", "three")
        )
        assert one == two
        assert (one == three) is shared
