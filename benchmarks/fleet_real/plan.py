"""How large a fleet is, what is asked of it, and whose the jobs are. Pure."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Sizes of one run; each is a flag. The load leaves the machine's cores room."""

    workers: int = 20
    tenants: int = 10_000
    partitions: int = 1_000
    rows: int = 8
    pace: float = 0.2  # seconds a step
    session_seconds: float = 6.0  # the least that a broker allows by default
    warm_seconds: float = 10.0  # before anything is measured
    steady_seconds: float = 60.0
    steady_jobs: float = 30.0  # a second
    steady_tokens: int = 10
    queued_jobs: int = 20_000  # unfinished when a worker joins
    queued_tokens: int = 2
    restarts: int = 20
    restart_jobs: float = 15.0  # a second
    restart_tokens: int = 20
    killed_alone: int = 2  # one after the other
    killed: int = 5  # at once
    killed_tokens: int = 100

    @property
    def names(self) -> list[str]:
        """The tenants' names."""
        return [f"t{number:05}" for number in range(self.tenants)]

    @property
    def capacity(self) -> float:
        """Tokens a second that all rows bring."""
        return self.workers * self.rows / self.pace

    @property
    def streams(self) -> int:
        """How many streams run when workers are killed: in four of ten rows."""
        return max(1, round(0.4 * self.workers * self.rows))

    def __str__(self) -> str:
        return (
            f"{self.workers} workers of {self.rows} rows, {self.pace * 1e3:.0f} ms a step,"
            f" {self.tenants} tenants, {self.partitions} jobs partitions, session time-out"
            f" {self.session_seconds:.0f} s; broker, workers, load and readers on one machine,"
            " other work of low priority beside them"
        )


def turns_of(tenants: int, seed: int = 1) -> Iterator[int]:
    """Yield whose job is next, without end.

    Every second one goes by Zipf's law, tenant k as often as 1/(k+1); those between go round, so
    that of 2N jobs each of N tenants has one at least.
    """
    chance = random.Random(seed)
    everyone = list(range(tenants))
    chance.shuffle(everyone)
    shares = list(itertools.accumulate(1 / (rank + 1) for rank in range(tenants)))
    for number in itertools.cycle(everyone):
        yield number
        yield chance.choices(range(tenants), cum_weights=shares)[0]
