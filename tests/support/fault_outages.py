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

STORE_SECONDS: Final = 2.0
BROKER_SECONDS: Final = 8.0  # longer than a session
# That the others are waited for before the fault ends; that they stood still, the checker tells.
STANDSTILL_SECONDS: Final = 90.0
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
    with scene.outage(tenant, adapter, ill=trouble == "ill") as settle:
        store.begin(tenant, adapter, trouble)
        begun = time.monotonic()
        if not await _until(lambda: scene.load.wants(tenant, adapter)):
            scene.missed.append(f"no job needed {tenant}'s {adapter} while its store was {trouble}")
        await asyncio.sleep(STORE_SECONDS)
        settle()
        await _others_answered(scene, tenant, begun)
        store.end()


async def reply_broker_killed(scene: Scene) -> None:
    """Kill the broker that has one tenant's replies, and start it again."""
    broker, tenant = scene.broker, scene.site.away
    assert broker is not None
    assert tenant is not None
    with scene.outage(tenant) as settle:
        begun = time.monotonic()
        await broker.kill()
        await asyncio.sleep(BROKER_SECONDS)
        settle()
        await _others_answered(scene, tenant, begun)
    await broker.revive()


async def _others_answered(scene: Scene, tenant: str, begun: float) -> None:
    """Wait for what all others have asked by now, and until each was answered in both ways."""
    load = scene.load
    waiting = {each for each in load.open if each.tenant != tenant}
    both = {(each, adapted) for each in TENANTS if each != tenant for adapted in (False, True)}
    await _until(lambda: not waiting & load.open and both <= load.answered_since(begun))


async def _until(true: Callable[[], bool]) -> bool:
    """Wait until something is true, but not for ever; return whether it is."""
    until = time.monotonic() + STANDSTILL_SECONDS
    while not true() and time.monotonic() < until:  # noqa: ASYNC110 - of other processes
        await asyncio.sleep(LOOK_SECONDS)
    return true()
