"""Record streams token by token while the worker of some of them is killed.

    python -m benchmarks.crash_timeline    # writes crash_timeline.csv

A real Kafka, two worker processes whose engine takes a fixed time for each step, a few streams
begun one after another. The worker that has most of them is killed with SIGKILL. A reader follows
all reply partitions by the reader rule and notes when each token became visible, whose it was, and
when the survivor's claims arrived. It fails unless every token comes exactly once and in order.

The CSV is not made of `benchmarks.record.Row`: it is a course of events, not figures over
repetitions. One row is one token or one claim: the stream's number, ``token`` or ``claim``, the
token's index (of a claim: how many tokens were visible), the worker (``killed`` or ``survivor``)
and the seconds since the kill. ``session_seconds`` is the session time-out. Where and when it was
measured stands in the first row only.
"""

from __future__ import annotations

import asyncio
import csv
import datetime as dt
import signal
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aril.schemas import ClaimRecord, TokensEvent, VisibleStream, decode_reply
from benchmarks.record import RESULTS, device, versions
from benchmarks.scale import PACE, SESSION_SECONDS, Bench, end
from tests.support.brokers import running_kafka

if TYPE_CHECKING:
    from pathlib import Path

    from aril.schemas import ReplyRecord
    from benchmarks.stack import Wire
    from tests.support.workers import WorkerProcess

QUESTION = "crash_timeline"
STREAMS = 8
TOKENS = 300
APART_SECONDS = 0.8  # between the beginnings, so that the streams lie apart
KILL_AFTER_SECONDS = 8.0
END_SECONDS = 60.0
COLUMNS = ("stream", "event", "index", "worker", "seconds", "session_seconds")


@dataclass(frozen=True)
class Event:
    """A token that became visible, or a claim."""

    kind: str
    index: int
    worker: str  # as it calls itself
    at: float  # by the monotonic clock


@dataclass
class Followed:
    """One stream as a reader sees it."""

    visible: VisibleStream = field(default_factory=VisibleStream)
    events: list[Event] = field(default_factory=list)

    def take(self, record: ReplyRecord, at: float) -> None:
        """Take the log's next record."""
        count = len(self.visible.token_ids)
        for event in self.visible.feed(record):
            if isinstance(event, TokensEvent):
                self.events += [
                    Event("token", count + each, record.worker, at)
                    for each in range(len(event.ids))
                ]
        if isinstance(record, ClaimRecord) and record.worker == self.visible.writer:
            self.events.append(Event("claim", count, record.worker, at))


class Follower:
    """Sends jobs to a bench, and reads every reply partition."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self.streams: dict[str, Followed] = {}

    async def ask(self) -> None:
        """Begin one more stream."""
        job, value = self._wire.request(len(self.streams), TOKENS)
        self.streams[job] = Followed()
        await self._wire.send(job, value)

    async def read(self) -> None:
        """Follow all streams to their ends."""
        while len(self.streams) < STREAMS or not all(
            each.visible.finished for each in self.streams.values()
        ):
            values = await self._wire.values()
            at = time.monotonic()
            for value in values:
                reply = decode_reply(value)
                if reply is not None:
                    self.streams[reply.job].take(reply, at)


async def measure(bootstrap: str) -> list[dict[str, object]]:
    """Run the streams across a kill; return the CSV's rows."""
    async with Bench(bootstrap) as bench:
        await asyncio.gather(bench.join(), bench.join())
        follower = Follower(await bench.wire())
        reading = asyncio.create_task(follower.read())
        begun = time.monotonic()
        for _ in range(STREAMS):
            await follower.ask()
            await asyncio.sleep(APART_SECONDS)
        await asyncio.sleep(begun + KILL_AFTER_SECONDS - time.monotonic())
        streams = list(follower.streams.values())
        victim = max(bench.workers, key=lambda worker: sum(has(worker, each) for each in streams))
        killed = time.monotonic()
        await end(victim, signal.SIGKILL)
        async with asyncio.timeout(END_SECONDS):
            await reading
    check(streams)
    return [
        {
            "stream": number,
            "event": event.kind,
            "index": event.index,
            "worker": "killed" if is_by(event.worker, victim) else "survivor",
            "seconds": f"{event.at - killed:.4f}",
            "session_seconds": SESSION_SECONDS,
        }
        for number, stream in enumerate(streams, 1)
        for event in stream.events
    ]


def is_by(name: str, worker: WorkerProcess) -> bool:
    """Tell whether a writer's name, which has its process's number in it, is that of a worker."""
    return name.rsplit("-", 2)[1] == str(worker.pid)


def has(worker: WorkerProcess, stream: Followed) -> bool:
    """Tell whether a worker is writing a stream."""
    writer = stream.visible.writer
    return writer is not None and is_by(writer, worker)


def check(streams: list[Followed]) -> None:
    """Raise RuntimeError unless each token came once, in order, and some streams were claimed."""
    for number, stream in enumerate(streams, 1):
        indices = [event.index for event in stream.events if event.kind == "token"]
        if indices != list(range(TOKENS)):
            raise RuntimeError(f"stream {number} has {len(indices)} tokens, not each of {TOKENS}")
    if not any(event.kind == "claim" for stream in streams for event in stream.events):
        raise RuntimeError("nothing was taken over")


def write_events(rows: list[dict[str, object]], folder: Path = RESULTS) -> Path:
    """Replace the CSV; its first row says where and when it was measured, for all of them."""
    config = f"2 workers, {STREAMS} streams of {TOKENS} tokens, {PACE * 1e3:.0f} ms a step"
    told = {
        "config": config,
        "device": device(),
        "versions": versions(),
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
    }
    path = folder / f"{QUESTION}.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*COLUMNS, *told])
        writer.writeheader()
        writer.writerows([rows[0] | told, *rows[1:]])
    return path


def main() -> None:
    """Measure and write the CSV."""
    with running_kafka() as kafka:
        rows = asyncio.run(measure(kafka.bootstrap))
    write_events(rows)
    claims = [row["seconds"] for row in rows if row["event"] == "claim"]
    print(f"{len(claims)} streams were taken over, seconds after the kill: {claims}")


if __name__ == "__main__":
    main()
