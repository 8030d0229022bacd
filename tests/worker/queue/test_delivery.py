"""Handing out: slices of time, order, and the end of an assignment in the middle of it."""

from __future__ import annotations

import asyncio
import itertools
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from aril.worker.job import Partition
from aril.worker.queue.assignment import Membership, PartitionState
from aril.worker.queue.delivery import SLICE_SECONDS, Delivery
from tests.support.members import Recorder

if TYPE_CHECKING:
    import pytest

    from aril.worker.job import Record


def state(partition: int) -> PartitionState:
    """Return a partition's state in the first assignment."""
    return PartitionState(Partition("jobs", partition), Membership(1, 1, "m"), end_offset=0)


def polled(*offsets: int) -> list[Any]:
    """Return records as aiokafka has them."""
    return [
        SimpleNamespace(offset=each, timestamp=0, key=None, value=b"v", headers=())
        for each in offsets
    ]


async def test_all_else_has_its_turn_while_slow_records_are_handed_out() -> None:
    """A hundred records of 5 ms each: a timer runs every few of them, not after the last."""

    class Slow(Recorder):
        def on_records(self, state: PartitionState, records: list[Record]) -> None:
            super().on_records(state, records)
            time.sleep(0.005)

    seen = Slow()
    turns: list[int] = []

    async def others() -> None:
        while len(seen.records) < 100:
            turns.append(len(seen.records))
            await asyncio.sleep(0)

    await asyncio.gather(Delivery(seen).polled([(state(0), polled(*range(100)))]), others())
    most = max(after - before for before, after in itertools.pairwise(turns))
    assert most <= SLICE_SECONDS / 0.005 + 1
    assert [each.offset for each in seen.records] == list(range(100))


async def test_what_is_left_of_an_assignment_that_ended_is_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A partition that goes while records are handed out gets no more; nor do the others."""
    monkeypatch.setattr("aril.worker.queue.delivery.SLICE_SECONDS", 0.0)
    seen, states = Recorder(), [state(0), state(1)]
    delivery = Delivery(seen)

    async def rebalance() -> None:
        while len(seen.records) < 3:  # noqa: ASYNC110 - turns of the loop are the point
            await asyncio.sleep(0)
        for each in states:
            each.revoked = True

    await asyncio.gather(
        delivery.polled([(each, polled(*range(5))) for each in states]), rebalance()
    )
    assert [(each.source.partition, each.offset) for each in seen.records] == [
        (0, 0),
        (0, 1),
        (0, 2),
    ]
    assert states[1].position is None  # nothing of it was read, so nothing can be committed


async def test_nothing_is_handed_out_after_the_end() -> None:
    """A worker that leaves takes nothing more on, whatever the last poll has brought."""
    seen = Recorder()
    delivery = Delivery(seen)
    delivery.close()
    await delivery.polled([(state(0), polled(0, 1))])
    assert seen.records == []
