"""What a fault has to work with, and what the checker has to know of the faults there were."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.faults.history import Outage

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator

    from tests.faults.history import Asked, Input, Logged, Name, Trim
    from tests.support.fault_broker import MortalKafka
    from tests.support.fault_fleet import FaultSite, Fleet
    from tests.support.fault_load import Load


@dataclass(slots=True)
class Scene:
    """A fleet under load. Faults leave two steady workers behind, or on their way."""

    fleet: Fleet
    load: Load
    random: random.Random
    broker: MortalKafka | None = None
    missed: list[str] = field(default_factory=list)  # faults that did not come about
    zombies: bool = False
    generations_restarted: bool = False
    retired: list[Input] = field(default_factory=list)  # job records, read before retention
    deleted: list[Logged] = field(default_factory=list)  # reply records, read before that
    restarted_at: dict[int, int] = field(default_factory=dict)  # ends of the jobs topic
    trimmed_at: dict[int, int] = field(default_factory=dict)  # the same
    trims: list[Trim] = field(default_factory=list)
    withdrawn: list[Name] = field(default_factory=list)
    clocks_off: list[tuple[int, int]] = field(default_factory=list)
    poisoned: list[Input] = field(default_factory=list)  # what was appended byte by byte
    neighbours: list[Asked] = field(default_factory=list)  # the jobs among that
    outages: list[Outage] = field(default_factory=list)

    @property
    def site(self) -> FaultSite:
        """The topics that are served."""
        return self.fleet.site

    @contextmanager
    def wrong_clocks(self) -> Iterator[None]:
        """Note that some worker's clock is off for a while."""
        begun = _now_ms()
        try:
            yield
        finally:
            self.clocks_off.append((begun, _now_ms()))

    @contextmanager
    def outage(
        self, tenant: str, adapter: str | None = None, *, ill: bool = False
    ) -> Iterator[Callable[[], None]]:
        """Note that a tenant may have to wait for a while, or for one adapter, and no other may.

        Gives what is to be called when it is settled.
        """
        begun = settled = _now_ms()

        def settle() -> None:
            nonlocal settled
            settled = _now_ms()

        try:
            yield settle
        finally:
            self.outages.append(Outage(begun, settled, _now_ms(), tenant, adapter, ill))


def _now_ms() -> int:
    return int(time.time() * 1_000)
