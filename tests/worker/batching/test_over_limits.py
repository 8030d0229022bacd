"""A job that is over its tenant's limits by itself holds up neither the worker nor its tenant."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aril.schemas import Job, WeightedAdapter
from aril.worker.adapters import AdapterWeights
from aril.worker.intake.tenant_limits import TenantLimits
from tests.support.harness import Harness

if TYPE_CHECKING:
    from pathlib import Path


class Store:
    """Has every adapter."""

    async def get(self, tenant: str, name: str) -> AdapterWeights:
        """Return an empty one."""
        return AdapterWeights(name=name, digest=f"{tenant}/{name}", rank=1, modules={})


async def test_a_mixture_of_more_adapters_than_its_tenant_may_use_runs_alone(
    tmp_path: Path,
) -> None:
    """It could never run: the window stayed open in the past, and the loop never slept again."""
    file = tmp_path / "limits.toml"
    file.write_text("[tenants.acme]\nadapters = 1\n")
    mixture = tuple(WeightedAdapter(name=name, weight=0.5) for name in "xy")
    limits = TenantLimits(file)
    async with Harness(max_rows=4, slots=4, adapters=Store(), limits=limits) as harness:
        harness.send(Job(id="a", tenant="acme", prompt="a", adapters=mixture))
        harness.send(Job(id="b", tenant="acme", prompt="b"))
        await harness.settle()
        assert "a" in harness.running
