"""Passing a batch that cannot be unpacked, without a broker: what is fetched, and what fails."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka import TopicPartition, errors
from aiokafka.consumer.fetcher import FetchError

from aril.fetching.tolerant import end_before_unreadable, skip_unreadable
from aril.worker.job import Partition
from aril.worker.queue.assignment import Membership, PartitionState
from aril.worker.queue.raw_batch import BATCH, Part
from aril.worker.queue.unreadable import UnreadableBatches
from tests.support.raw_records import batch, record

if TYPE_CHECKING:
    from collections.abc import Sequence

WHERE = TopicPartition("jobs", 3)


class Reader:
    """Holds one partition, and notes what becomes of it."""

    def __init__(self) -> None:
        self.state = PartitionState(Partition(*WHERE), Membership(1, 1, "m"), end_offset=0)
        self.taken: list[Part] = []
        self.resumed = asyncio.Event()

    async def state_of(self, where: TopicPartition) -> PartitionState:
        """Return the one."""
        assert where == WHERE
        return self.state

    async def take(self, state: PartitionState, parts: Sequence[Part]) -> None:
        """Note them."""
        assert state is self.state
        self.taken += parts

    def resume(self) -> None:
        """Note it."""
        self.resumed.set()


class ReadingReader(Reader):
    """Hands out what it takes, as a worker that stays does."""

    async def take(self, state: PartitionState, parts: Sequence[Part]) -> None:
        """Note that each was read."""
        await super().take(state, parts)
        for part in parts:
            assert state.read(part.record.offset)


class Consumer:
    """Notes pauses and seeks."""

    def __init__(self) -> None:
        self.paused: list[TopicPartition] = []
        self.positions: list[int] = []

    def pause(self, where: TopicPartition) -> None:
        """Note it."""
        self.paused.append(where)

    def seek(self, where: TopicPartition, offset: int) -> None:
        """Note it."""
        assert where == WHERE
        self.positions.append(offset)


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[bytes | Exception]:
    """Return what the next fetches bring."""
    answers: list[bytes | Exception] = []

    async def fetch(consumer: Any, where: TopicPartition, offset: int) -> bytes:  # noqa: ARG001 - as the real one
        await asyncio.sleep(0)
        if isinstance(answer := answers.pop(0), Exception):
            raise answer
        return answer

    monkeypatch.setattr("aril.worker.queue.unreadable.fetch_batch", fetch)
    monkeypatch.setattr("aril.worker.queue.unreadable.RETRY_SECONDS", 0.0)
    return answers


async def test_a_batch_is_passed_and_its_partition_goes_on(
    fetched: list[bytes | Exception],
) -> None:
    """It rests while the batch is looked at, then reading goes on behind it."""
    reader, consumer = Reader(), Consumer()
    looking = UnreadableBatches(reader)
    fetched.append(batch([record(0, None, b"a"), record(1, None, b"b")], base=10))
    looking.found(consumer, WHERE, 11)
    assert WHERE in looking
    assert consumer.paused == [WHERE]
    await reader.resumed.wait()
    assert WHERE not in looking
    assert [each.record.offset for each in reader.taken] == [11]
    assert consumer.positions == [12]


async def test_a_broker_that_does_not_answer_is_asked_again(
    fetched: list[bytes | Exception],
) -> None:
    """The position stays; the consumer comes back to the batch by itself."""
    reader, consumer = Reader(), Consumer()
    fetched.append(errors.NotLeaderForPartitionError())
    looking = UnreadableBatches(reader)
    looking.found(consumer, WHERE, 11)
    await reader.resumed.wait()
    assert (reader.taken, consumer.positions) == ([], [])
    assert WHERE not in looking


async def test_what_cannot_even_be_fetched_leaves_its_place(
    fetched: list[bytes | Exception],
) -> None:
    """One offset is put aside without bytes, so that the partition does not stand still."""
    reader, consumer = Reader(), Consumer()
    fetched.append(ValueError("an answer that cannot be read"))
    UnreadableBatches(reader).found(consumer, WHERE, 11)
    await reader.resumed.wait()
    [part] = reader.taken
    assert (part.record.offset, part.record.value, part.reason) == (11, None, BATCH)
    assert consumer.positions == [12]


async def test_an_assignment_that_ends_takes_the_looking_with_it(
    fetched: list[bytes | Exception],
) -> None:
    """Nothing is handed out and nothing is moved: the next assignment meets the batch again."""
    reader, consumer = Reader(), Consumer()
    fetched.append(batch([record(0, None, b"a")], base=11))
    looking = UnreadableBatches(reader)
    looking.found(consumer, WHERE, 11)
    looking.forget([WHERE])
    await asyncio.sleep(0.05)
    assert (reader.taken, consumer.positions) == ([], [])
    assert WHERE not in looking


@pytest.mark.parametrize("readers", [True, False])
def test_a_torn_batch_does_not_raise_out_of_a_poll(readers: bool) -> None:
    """Aiokafka takes it for one that is larger than a fetch, and would end the worker."""

    class Fetcher:
        _records: dict[Any, Any] = {}  # noqa: RUF012 - as an instance of aiokafka's has it
        _client = object()

    class Whole:
        _fetcher = Fetcher()

    told: list[tuple[TopicPartition, int]] = []
    if readers:
        skip_unreadable(Whole())
    else:
        end_before_unreadable(Whole(), lambda where, offset: told.append((where, offset)))
    torn = errors.RecordTooLargeError("some text", WHERE, 7, 1_048_576)
    Whole._fetcher._records[WHERE] = FetchError(error=torn, backoff=0)
    assert WHERE not in Whole._fetcher._records
    assert told == ([] if readers else [(WHERE, 7)])
    other = FetchError(error=errors.TopicAuthorizationFailedError("jobs"), backoff=0)
    Whole._fetcher._records[WHERE] = other
    assert Whole._fetcher._records[WHERE] is other


async def test_a_batch_that_cannot_be_unpacked_is_finished_to_its_end(
    fetched: list[bytes | Exception],
) -> None:
    """Nothing may ever come behind it, and one letter stands for all of its offsets."""
    reader, consumer = ReadingReader(), Consumer()
    records = [record(at, None, b"x") for at in range(3)]
    fetched.append(batch(records, base=10, attributes=1, packed=b"no gzip"))
    UnreadableBatches(reader).found(consumer, WHERE, 10)
    await reader.resumed.wait()
    assert [part.record.offset for part in reader.taken] == [10]
    assert consumer.positions == [13]
    reader.state.finish_offset(10)
    assert reader.state.position == 13


async def test_what_was_not_handed_out_is_not_finished(fetched: list[bytes | Exception]) -> None:
    """We are leaving: the next owner meets the batch again."""
    reader, consumer = Reader(), Consumer()
    reader.state.read(9)
    fetched.append(batch([record(0, None, b"x")] * 3, base=10, attributes=1, packed=b"no gzip"))
    UnreadableBatches(reader).found(consumer, WHERE, 10)
    await reader.resumed.wait()
    reader.state.finish_offset(9)
    assert reader.state.position == 10
