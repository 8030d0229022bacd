"""The order in which a seed puts the faults, and who does them."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import TYPE_CHECKING

from tests.support.fault_deaths import (
    STEADY,
    all_dead,
    clock_jumps,
    clocks_apart,
    killed_at,
    rolling_restart,
    scale,
    zombie,
    zombie_at_a_point,
)
from tests.support.fault_group import (
    group_deleted,
    late_commit,
    lost_metadata,
    partition_added,
    prefix_deleted,
)
from tests.support.fault_network import (
    bad_network,
    black_hole,
    broker_halted,
    broker_killed,
    broker_killed_in_commit,
    commit_dropped,
    commit_unanswered,
)
from tests.support.fault_outages import reply_broker_killed, store_ill, store_slow
from tests.support.fault_poison import odd_records, packed_badly
from tests.support.fault_worker import POINTS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.support.fault_scene import Scene

    Fault = Callable[[Scene], Awaitable[None]]

# A short round has one of each kind, a whole one has all.
KINDS: tuple[tuple[Fault, ...], ...] = (
    (zombie, zombie_at_a_point),
    (rolling_restart, scale, clocks_apart, clock_jumps),
    (all_dead, lost_metadata, group_deleted, late_commit),
    (bad_network, black_hole, commit_dropped, commit_unanswered),
    (partition_added, prefix_deleted),
    (store_slow, store_ill),
)
# They take no time, and come together with others.
POISON: tuple[Fault, ...] = (packed_badly, odd_records)
OF_THE_BROKER: tuple[Fault, ...] = (
    broker_halted,
    broker_killed,
    broker_killed_in_commit,
    reply_broker_killed,
)
BY_NAME = {fault.__name__: fault for kind in (*KINDS, POISON, OF_THE_BROKER) for fault in kind}


class Faults:
    """Does what a plan says to a scene."""

    def __init__(self, scene: Scene, seed: int) -> None:
        self._scene = scene
        self._random = random.Random(seed)
        self.done: Counter[str] = Counter()

    def plan(self, *, whole: bool) -> list[str]:
        """Return a round of faults in an order of its own; those joined by a plus come together.

        Every point is in it, all poison, and every other fault, or else one of each kind.
        """
        points = [*POINTS]
        self._random.shuffle(points)
        found = list(map("+".join, zip(points[::2], points[1::2], strict=True)))
        for kind in KINDS:
            chosen = kind if whole else [self._random.choice(kind)]
            found += [fault.__name__ for fault in chosen]
        self._random.shuffle(found)
        for poison in POISON:
            found[self._random.randrange(len(found))] += f"+{poison.__name__}"
        return found

    async def commit(self, names: str) -> None:
        """Do one, or several at a time; then see to it that two steady workers live."""
        await asyncio.gather(*map(self._commit, names.split("+")))
        fleet = self._scene.fleet
        await fleet.grow(STEADY)
        while len(fleet.steady) > STEADY:
            await fleet.drain(fleet.steady[0])

    async def _commit(self, name: str) -> None:
        if name in POINTS:
            await killed_at(self._scene, name)
        else:
            await BY_NAME[name](self._scene)
        self.done[name] += 1
