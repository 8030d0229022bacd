"""Faults that may cost one tenant time, and no other: its adapter's store, its replies' broker."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from tests.support.fault_content import ADAPTERS, SHARED_ADAPTER
from tests.support.fault_load import TENANTS
from tests.support.fault_store import StoreTrouble

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.fault_scene import Scene
    from tests.support.fault_store import Trouble

STORE_SECONDS: Final = 3.0
BROKER_SECONDS: Final = 8.0  # longer than a session
# That the others are waited for before the fault ends; that they stood still, the checker tells.
STANDSTILL_SECONDS: Final = 60.0
LOOK_SECONDS: Final = 0.1


async def store_slow(scene: Scene) -> None:
    """Let a tenant's adapter not come as long as this lasts."""
    await _store(scene, "slow")


async def store_ill(scene: Scene) -> None:
    """Let each fetch of a tenant's adapter fail as long as this lasts."""
    scene.fleet.excused.add("prepare_failed")
    await _store(scene, "ill")


async def _store(scene: Scene, trouble: Trouble) -> None:
    tenant = scene.random.choice(TENANTS)
    adapter = scene.random.choice([each for each in ADAPTERS if each != SHARED_ADAPTER])
    store = StoreTrouble(scene.site.store)
    with scene.outage(tenant, adapter, ill=trouble == "ill"):
        store.begin(tenant, adapter, trouble)
        begun = time.monotonic()
        hit = await _outlast(
            scene, tenant, begun, STORE_SECONDS, lambda: scene.load.wants(tenant, adapter)
        )
        store.end()
    if not hit:
        scene.missed.append(f"no job needed {tenant}'s {adapter} while its store was {trouble}")


async def reply_broker_killed(scene: Scene) -> None:
    """Kill the broker that has one tenant's replies, and start it again."""
    broker, tenant = scene.broker, scene.site.away
    assert broker is not None
    assert tenant is not None
    with scene.outage(tenant):
        begun = time.monotonic()
        await broker.kill()
        await _outlast(scene, tenant, begun, BROKER_SECONDS, lambda: True)
    await broker.revive()


async def _outlast(
    scene: Scene, tenant: str, begun: float, seconds: float, hit: Callable[[], bool]
) -> bool:
    """Wait for a while, and until all other tenants were answered and the fault has hit a job.

    Returns whether it did.
    """
    was_hit = False
    others = {(each, adapted) for each in TENANTS if each != tenant for adapted in (False, True)}
    while (now := time.monotonic()) < begun + STANDSTILL_SECONDS:
        was_hit = was_hit or hit()
        if was_hit and now >= begun + seconds and others <= scene.load.answered_since(begun):
            break
        await asyncio.sleep(LOOK_SECONDS)
    return was_hit
