"""How long partitions stand still while workers come and go, by either protocol of the group.

Three workers whose engine costs nothing, a small job for each partition every tenth of a second,
all on this machine. A partition stands still from when a job is sent to when its answer's first
record is appended: of each partition the longest within a change counts, and `quiet` is what that
is without one. A worker joins, and leaves by SIGTERM; then each of the three is replaced, the next
one before it goes. The protocols take turns, so that what else the machine does is both's.
"""

from __future__ import annotations

import asyncio
import functools
import signal
import statistics
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Final, Literal

from aril.schemas import DoneRecord, TokensRecord, decode_reply
from benchmarks.record import Row, ratios
from benchmarks.stack import PACED, Stack

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from benchmarks.stack import Wire
    from tests.support.workers import WorkerProcess

Protocol = Literal["classic", "consumer"]

PROTOCOLS: Final[tuple[Protocol, ...]] = ("classic", "consumer")
METRIC: Final = "stands still"
PARTITIONS: Final = 12
WORKERS: Final = 3
EVERY_SECONDS: Final = 0.1
PACE: Final = "0.002"  # seconds a step
QUIET_SECONDS: Final = 5.0
AROUND_SECONDS: Final = 3.0  # that answers are looked at once a change is over
PATIENCE: Final = 60.0
LONG_SECONDS: Final = 0.2  # several times what a job takes in quiet
CONFIG: Final = (
    f"{WORKERS} workers, {PARTITIONS} partitions, a job each {EVERY_SECONDS * 1e3:.0f} ms in each;"
    " heartbeats each 0.5 s by either protocol"
)


class Probe:
    """Sends jobs to all partitions, and notes how long each waits for its first record."""

    def __init__(self, wire: Wire, partitions: int) -> None:
        self._wire = wire
        self._partitions = partitions
        self._sent: dict[str, tuple[int, float]] = {}  # partition, and when by the wall clock
        self.waits: list[tuple[int, float, float]] = []  # partition, sent at, seconds

    async def send(self) -> None:
        """Send until cancelled."""
        number = 0
        while True:
            at = time.monotonic()
            for partition in range(self._partitions):
                job, value = self._wire.request(number, tokens=1)
                number += 1
                self._sent[job] = partition, time.time()
                await self._wire.send(job, value, partition)
            await asyncio.sleep(max(0.0, at + EVERY_SECONDS - time.monotonic()))

    async def read(self) -> None:
        """Read answers until cancelled."""
        while True:
            for appended, value in await self._wire.stamped():
                record = decode_reply(value)
                if isinstance(record, TokensRecord | DoneRecord) and record.job in self._sent:
                    partition, at = self._sent.pop(record.job)
                    self.waits.append((partition, at, appended - at))

    async def answered(self, before: float) -> None:
        """Wait until what was sent before some time is answered."""
        async with asyncio.timeout(PATIENCE):
            while any(at < before for _, at in self._sent.values()):  # noqa: ASYNC110 - the broker's state
                await asyncio.sleep(EVERY_SECONDS)

    def longest(self, begun: float, ended: float) -> list[float]:
        """Return the longest wait of each partition, of what was sent within a span of time."""
        found: dict[int, float] = defaultdict(float)
        for partition, at, seconds in self.waits:
            if begun <= at <= ended:
                found[partition] = max(found[partition], seconds)
        return [*found.values()]


class Changes:
    """One group that changes, by one protocol."""

    def __init__(self, bootstrap: str, protocol: Protocol) -> None:
        self._stack = Stack(bootstrap, partitions=PARTITIONS, reply_partitions=1)
        self._protocol = protocol
        self._workers: list[WorkerProcess] = []
        self.seen: dict[str, list[float]] = {}  # by change, the longest wait of each partition

    async def run(self) -> None:
        """Do all changes."""
        async with self._stack as stack:
            for _ in range(WORKERS):
                await self._join()
            probe = Probe(await stack.wire(), PARTITIONS)
            tasks = [asyncio.create_task(work) for work in (probe.send(), probe.read())]
            try:
                await asyncio.sleep(QUIET_SECONDS)
                await self._during(probe, "quiet", asyncio.sleep(QUIET_SECONDS))
                await self._during(probe, "a worker joins", self._join())
                await self._during(probe, "a worker leaves", self._leave())
                await self._during(probe, "rolling restart", self._roll())
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _during(self, probe: Probe, name: str, change: Awaitable[None]) -> None:
        begun = time.time()
        await change
        await asyncio.sleep(AROUND_SECONDS)
        ended = time.time()
        await probe.answered(ended)
        self.seen[name] = probe.longest(begun, ended)

    async def _join(self) -> None:
        self._workers.append(
            await self._stack.add_worker(
                PACED, PACE, group_protocol=self._protocol, max_rows=64, drain_seconds=5
            )
        )
        await self._shared()

    async def _leave(self) -> None:
        leaving = self._workers.pop(0)
        leaving.signal(signal.SIGTERM)
        await leaving.wait()
        await self._shared()

    async def _roll(self) -> None:
        for _ in range(WORKERS):
            await self._join()
            await self._leave()

    async def _shared(self) -> None:
        """Wait until each worker has its share."""
        least = PARTITIONS // len(self._workers)
        async with asyncio.timeout(PATIENCE):
            while True:
                held = [await each.metric("aril_partitions") for each in self._workers]
                if sum(held) == PARTITIONS and min(held) >= least:
                    return
                await asyncio.sleep(EVERY_SECONDS)


async def standstills(bootstrap: str, rounds: int, question: str) -> list[Row]:
    """Let both protocols take turns; of all rounds' partitions, what each change cost them.

    The ratio is of one round's medians, the new protocol's by the classic one's.
    """
    seen: dict[tuple[Protocol, str], list[list[float]]] = defaultdict(list)
    for number in range(rounds):
        for protocol in PROTOCOLS if number % 2 else reversed(PROTOCOLS):
            changes = Changes(bootstrap, protocol)
            await changes.run()
            for name, longest in changes.seen.items():
                seen[protocol, name].append(longest)
                print(f"{protocol} {name}: {sorted(round(each, 3) for each in longest)}")
    row = functools.partial(Row.of, question=question, config=f"{CONFIG}; {rounds} rounds")
    rows = []
    for (protocol, name), each in seen.items():
        told = functools.partial(row, provider=f"aril, {protocol}", x=name)
        long = [sum(wait > LONG_SECONDS for wait in longest) / len(longest) for longest in each]
        rows += [
            told([wait for longest in each for wait in longest], metric=METRIC, unit="s"),
            told([max(longest) for longest in each], metric=f"{METRIC}, worst", unit="s"),
            told(long, metric=f"{METRIC} for {LONG_SECONDS} s, share of partitions", unit="1"),
        ]
    for name in dict.fromkeys(name for _, name in seen):
        new, classic = (
            [statistics.median(longest) for longest in seen[protocol, name]]
            for protocol in ("consumer", "classic")
        )
        told = functools.partial(row, provider="aril, consumer over classic", x=name, unit="1")
        rows.append(told(ratios(new, classic), metric=METRIC))
    return rows
