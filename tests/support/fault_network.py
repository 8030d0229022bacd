"""Faults between a worker and its broker: lost and late bytes, lost commits, a broker that dies."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import psutil

from tests.support.fault_deaths import NUDGE_SECONDS
from tests.support.fault_fleet import SESSION_SECONDS
from tests.support.fault_proxy import FaultProxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.fault_fleet import FaultWorker
    from tests.support.fault_proxy import Fate
    from tests.support.fault_scene import Scene

# What is held back of whom, and for how long: shorter than a session; longer; longer than an
# append waits for its acknowledgement, while the rest goes on.
HOLES = (
    (("up",), False, SESSION_SECONDS / 2),
    (("up", "down"), False, SESSION_SECONDS + 3),
    (("down",), False, SESSION_SECONDS + 3),
    (("down",), True, 17.0),
    (("up",), True, 17.0),
)
COMMITS = 2  # how many are lost, one after the other


async def bad_network(scene: Scene) -> None:
    """Cut and delay what goes between a worker and the broker."""
    async with behind_a_proxy(scene) as (proxy, _):
        for _ in range(3):
            proxy.delay = scene.random.choice((0.0, 0.02, 0.3))
            await asyncio.sleep(scene.random.uniform(0.5, 1.5))
            proxy.cut()


async def black_hole(scene: Scene) -> None:
    """Hold back what goes between a worker and the broker, so that it lands late."""
    scene.zombies = True
    ways, appends_only, seconds = scene.random.choice(HOLES)
    async with behind_a_proxy(scene) as (proxy, _):
        proxy.hold(*ways, appends_only=appends_only)
        await asyncio.sleep(seconds)
        proxy.heal()
        await asyncio.sleep(1)


async def commit_dropped(scene: Scene) -> None:
    """Lose commits on their way to the broker, with their connection."""
    await _lose_commits(scene, "dropped")


async def commit_unanswered(scene: Scene) -> None:
    """Let the broker take commits, and lose its answers, with their connection."""
    await _lose_commits(scene, "unanswered")


async def _lose_commits(scene: Scene, fate: Fate) -> None:
    async with behind_a_proxy(scene) as (proxy, _):
        for _ in range(COMMITS):
            await catch_commit(scene, proxy, fate)
            await asyncio.sleep(scene.random.uniform(0, 0.5))


async def broker_halted(scene: Scene) -> None:
    """Let the broker answer nobody, for less or for more than anybody waits for it."""
    assert scene.broker is not None
    scene.zombies = True
    await scene.broker.halt(scene.random.choice((2.0, SESSION_SECONDS + 3, 18.0)))


async def broker_killed(scene: Scene) -> None:
    """Kill the broker, and start it again."""
    assert scene.broker is not None
    scene.zombies = True
    await scene.broker.die(scene.random.uniform(0, 4))
    await asyncio.sleep(2)


async def broker_killed_in_commit(scene: Scene) -> None:
    """Kill the broker, the group's coordinator, in the moment in which it is sent a commit."""
    assert scene.broker is not None
    scene.zombies = True
    async with behind_a_proxy(scene) as (proxy, _):
        await catch_commit(scene, proxy, "sent")
        await scene.broker.die(scene.random.uniform(0, 2))
        await asyncio.sleep(2)


async def catch_commit(scene: Scene, proxy: FaultProxy, fate: Fate) -> None:
    """Wait until that has happened to a commit."""
    try:
        async with asyncio.timeout(NUDGE_SECONDS):
            await proxy.catch_commit(fate).wait()
    except TimeoutError:
        scene.missed.append(f"no commit was {fate}")


def connections_to(port: int, worker: FaultWorker) -> list[object]:
    """Return a process's connections to a port of this machine."""
    if worker.exit_code is not None:
        return []
    found = psutil.Process(worker.pid).net_connections("tcp")
    return [each for each in found if each.raddr[1:] == (port,)]  # () where it only listens


@asynccontextmanager
async def behind_a_proxy(scene: Scene) -> AsyncIterator[tuple[FaultProxy, FaultWorker]]:
    """Run a busy worker behind a proxy; kill it in the end."""
    port = scene.site.bootstrap.rpartition(":")[2]
    async with FaultProxy(int(port)) as proxy:
        worker = scene.fleet.new(bootstrap=proxy.bootstrap)
        await worker.busy()
        yield proxy, worker
        if past := connections_to(int(port), worker):
            scene.missed.append(f"{worker.name} went past the proxy: {past}")
        if worker.exit_code is not None and worker.exit_code >= 0:
            scene.missed.append(f"{worker.name} ended by itself, exit code {worker.exit_code}")
        await worker.kill()
