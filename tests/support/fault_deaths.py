"""Faults of workers: they die or halt at named points, come and go, and live by wrong clocks."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

from tests.support.fault_fleet import SESSION_SECONDS
from tests.support.fault_worker import POINTS

if TYPE_CHECKING:
    from tests.support.fault_fleet import FaultWorker
    from tests.support.fault_scene import Scene

STEADY = 2
NUDGE_SECONDS, NUDGES = 15.0, 5
# After how many passes a point kills, at the most.
PASSES = {"after_fetch": 3, "after_claim": 2, "mid_stream": 60, "after_terminal": 6}
CLOCK_SECONDS = 300  # how far a worker's clock is off
JUMP_SECONDS = 0.7  # how often a clock jumps there and back


async def killed_at(scene: Scene, point: str) -> None:
    """Let a worker join that dies at a point."""
    worker = scene.fleet.new(kill=_passing(scene, point))
    await _lead_to(scene, worker, point)
    fleet = scene.fleet
    many = len(fleet.steady)
    for _ in range(NUDGES):
        if await worker.died(NUDGE_SECONDS):
            break
        if worker.exit_code is not None:
            break
        # By chance there was nothing for it to take over. Who joins moves partitions about, and
        # who is killed leaves jobs in the middle, until one of them comes its way.
        fleet.steady.append(fleet.new())
        if point != "in_revoke":  # by KIP-848 a partition is taken from it once shares are smaller
            await fleet.steady.pop(0).kill()
    while len(fleet.steady) > many:
        await fleet.steady.pop(0).kill()
    if not await worker.died(NUDGE_SECONDS):
        scene.missed.append(f"{worker.name} did not die, exit code {worker.exit_code}")
        await worker.kill()


async def zombie(scene: Scene) -> None:
    """Halt a busy worker until others have its jobs, and let it go on."""
    worker = scene.random.choice(scene.fleet.steady)
    await worker.busy()
    worker.signal(signal.SIGSTOP)
    await _wake(scene, worker)


async def zombie_at_a_point(scene: Scene) -> None:
    """Halt one where it hurts."""
    point = scene.random.choice(POINTS)
    worker = scene.fleet.new(halt=_passing(scene, point))
    await _lead_to(scene, worker, point)
    if not await worker.halted():
        scene.missed.append(f"{worker.name} did not halt, exit code {worker.exit_code}")
        return
    await _wake(scene, worker)
    if point == "in_drain":
        await scene.fleet.gone(worker)
    else:
        scene.fleet.steady.append(worker)


async def rolling_restart(scene: Scene) -> None:
    """Replace three workers, one after the other."""
    fleet = scene.fleet
    await fleet.grow(3)
    for worker in [*fleet.steady]:
        fleet.steady.append(fleet.new())
        await fleet.drain(worker)
    await fleet.grow(3)


async def scale(scene: Scene) -> None:
    """From two to one, to three, to one."""
    fleet = scene.fleet
    await fleet.drain(fleet.steady[0])
    await fleet.grow(3)
    await asyncio.gather(*map(fleet.drain, fleet.steady[1:]))


async def all_dead(scene: Scene) -> None:
    """Let nobody live for a while."""
    await scene.fleet.kill_all()
    await asyncio.sleep(scene.random.uniform(0, 3))


async def clocks_apart(scene: Scene) -> None:
    """Serve with clocks ten minutes apart, neither the tenants'; the one behind inherits."""
    fleet = scene.fleet
    with scene.wrong_clocks():
        ahead, behind = (fleet.new(clock=f"{way}{CLOCK_SECONDS}") for way in ("", "-"))
        await replace_all(scene, ahead, behind)
        await ahead.busy()
        fleet.steady.remove(ahead)
        await ahead.kill()
        await fleet.grow(STEADY)
        await behind.busy()
        await fleet.drain(behind)


async def clock_jumps(scene: Scene) -> None:
    """Let a worker's clock jump back and forth, and the worker be killed in the end."""
    seconds = scene.random.choice((-CLOCK_SECONDS, CLOCK_SECONDS))
    with scene.wrong_clocks():
        worker = scene.fleet.new(clock=f"{seconds}:{JUMP_SECONDS}")
        await worker.busy()
        await asyncio.sleep(4 * JUMP_SECONDS)
        await worker.kill()


async def replace_all(scene: Scene, *others: FaultWorker) -> None:
    """Let others take the place of all steady workers, which drain at the same time."""
    replaced, scene.fleet.steady = scene.fleet.steady, [*others]
    await scene.fleet.grow(len(others))
    for worker in replaced:
        worker.signal(signal.SIGTERM)
    await asyncio.gather(*map(scene.fleet.gone, replaced))


async def _wake(scene: Scene, worker: FaultWorker) -> None:
    scene.zombies = True
    await asyncio.sleep(SESSION_SECONDS + scene.random.uniform(1, 4))
    worker.signal(signal.SIGCONT)
    await asyncio.sleep(1)


def _passing(scene: Scene, point: str) -> str:
    return f"{point}:{scene.random.randint(1, PASSES.get(point, 1))}"


async def _lead_to(scene: Scene, worker: FaultWorker, point: str) -> None:
    """Do what lets a worker come to a point, where load alone does not."""
    if point == "in_revoke":
        await worker.ready()
        scene.fleet.steady.append(scene.fleet.new())
    elif point == "in_drain":
        await worker.busy()
        worker.signal(signal.SIGTERM)
