"""Measure how long streams stand still whose worker is killed while all rows are in use.

    python -m benchmarks.full_rows [--rounds 3] [--beside CHECKOUT]    # writes full_rows.csv

A real Kafka, three worker processes of four rows, 100 ms a step, and 600 jobs of 60 tokens of 200
tenants: a queue of five minutes. One worker is killed with SIGKILL; what counts is the time from
then to the next token of each stream that ran there, less the session time-out. Who waits longer
than a minute is counted as a minute. With another checkout of ours its workers take turns.
"""

from __future__ import annotations

import argparse
import functools
import signal
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aril.schemas import VisibleStream, decode_reply
from benchmarks.crash_timeline import is_by
from benchmarks.record import Row
from benchmarks.scale import SESSION_SECONDS, end
from benchmarks.stack import PACED, Stack, keep_measured

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.stack import Wire

QUESTION: Final = "full_rows"
WORKERS, ROWS, PACE, TOKENS = 3, 4, 0.1, 60
TENANTS, JOBS, PARTITIONS = 200, 600, 12
WARM_SECONDS: Final = 15.0
MOST_SECONDS: Final = 60.0
LAST_WORDS_SECONDS: Final = 1.0  # less than the session time-out: nobody else writes yet
ROUNDS: Final = 3


class Streams:
    """All streams as a reader sees them."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._streams: dict[str, VisibleStream] = defaultdict(VisibleStream)

    async def read(self) -> None:
        """Read what has come."""
        for value in await self._wire.values():
            if (reply := decode_reply(value)) is not None:
                stream = self._streams[reply.job]
                stream.feed(reply)
                if stream.finished:
                    del self._streams[reply.job]

    def running(self) -> dict[str, tuple[str, int]]:
        """Return who writes each stream that has begun and not ended, and its tokens so far."""
        return {
            job: (stream.writer or "", len(stream.token_ids))
            for job, stream in self._streams.items()
            if stream.token_ids
        }


async def once(bootstrap: str, checkout: Path | None) -> list[float]:
    """Kill one of the workers; return how long each of its streams stood still."""
    tenants = [f"t{number:03}" for number in range(TENANTS)]
    stack = Stack(bootstrap, partitions=PARTITIONS, reply_partitions=1, tenants=tenants)
    async with stack:
        for _ in range(WORKERS):
            await stack.add_worker(
                *(PACED, str(PACE)),
                checkout=checkout,
                max_rows=ROWS,
                session_timeout_ms=int(SESSION_SECONDS * 1_000),
            )
        streams = Streams(await stack.wire())
        await stack.leave_jobs(JOBS, TOKENS)
        warm = time.monotonic() + WARM_SECONDS
        while time.monotonic() < warm:
            await streams.read()
        writers = Counter(writer for writer, _ in streams.running().values())
        dead, _ = writers.most_common(1)[0]
        [victim] = [each for each in stack.workers if is_by(dead, each)]
        killed = time.monotonic()
        await end(victim, signal.SIGKILL)
        while time.monotonic() < killed + LAST_WORDS_SECONDS:
            await streams.read()  # what it had written: none of it is a stream that goes on
        left = {job: so_far for job, so_far in streams.running().items() if so_far[0] == dead}
        still: dict[str, float] = {}
        while len(still) < len(left) and time.monotonic() < killed + SESSION_SECONDS + MOST_SECONDS:
            await streams.read()
            now = streams.running()
            for job in left.keys() - still.keys():
                if job not in now or now[job][1] > left[job][1]:
                    still[job] = time.monotonic() - killed - SESSION_SECONDS
        return [still.get(job, MOST_SECONDS) for job in left]


async def measure(bootstrap: str, *, rounds: int, beside: Path | None) -> list[Row]:
    """Take turns."""
    checkouts = {"aril": None} | ({"aril, earlier": beside} if beside else {})
    figures: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        for name, checkout in checkouts.items():
            found = await once(bootstrap, checkout)
            figures[name] += found
            print(name, *(f"{each:.1f}" for each in sorted(found)), "s", flush=True)
    return [row for name, found in figures.items() for row in rows_of(name, found)]


def rows_of(name: str, found: Sequence[float]) -> list[Row]:
    """Make the CSV's rows of one build."""
    row = functools.partial(
        Row.of,
        question=QUESTION,
        provider=name,
        x=f"{len(found)} streams",
        unit="s",
        config=f"{WORKERS} workers of {ROWS} rows, {JOBS} jobs of {TENANTS} tenants, "
        f"{TOKENS} tokens of {PACE:g} s; a minute at the most",
    )
    return [
        row(found, metric="next token, beyond the session time-out"),
        row([max(found)], metric="the last of them"),
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--beside", type=Path)
    asked = vars(parser.parse_args())
    keep_measured(QUESTION, functools.partial(measure, **asked))
