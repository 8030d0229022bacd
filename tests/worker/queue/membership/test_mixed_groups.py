"""Members of both protocols do not meet in one group: who comes second is told why, and leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from aiokafka import errors

from aril.worker.queue.membership.group_type import refuse_mixed_group
from aril.worker.queue.membership.interface import GroupProtocolError
from tests.support.members import PARTITIONS, Member, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.brokers import Kafka


@pytest.mark.kafka
async def test_a_classic_worker_is_refused_and_disturbs_nobody(
    kafka: Kafka, topic: str, member: Callable[[], Member]
) -> None:
    """It looks before it joins; once all of the others have left it may come."""
    async with member() as first:
        await until(lambda: len(first.consumer.states) == PARTITIONS)
        before = first.consumer.states
        with pytest.raises(GroupProtocolError, match="has 1 members of the consumer protocol"):
            await Member(kafka, topic).consumer.start()
        assert first.consumer.states == before
        assert first.seen.revoked == []
    async with Member(kafka, topic) as classic:
        await until(lambda: len(classic.consumer.states) == PARTITIONS)


@pytest.mark.kafka
async def test_a_worker_of_the_consumer_protocol_is_refused_likewise(
    kafka: Kafka, topic: str, member: Callable[[], Member]
) -> None:
    """The brokers would turn the group into one of KIP-848 if it joined."""
    async with Member(kafka, topic) as classic:
        await until(lambda: len(classic.consumer.states) == PARTITIONS)
        with pytest.raises(GroupProtocolError, match="has 1 members of the classic protocol"):
            await member().consumer.start()
        assert classic.seen.revoked == []
    async with member() as first:
        await until(lambda: len(first.consumer.states) == PARTITIONS)


@pytest.mark.kafka
async def test_one_that_came_in_all_the_same_is_found_at_the_next_assignment(
    kafka: Kafka, topic: str, member: Callable[[], Member], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two that look at one time see nobody: both end, and nothing that they get is begun."""

    async def sees_nobody(*_: object) -> None:
        pass

    async with member() as first:
        await until(lambda: len(first.consumer.states) == PARTITIONS)
        monkeypatch.setattr("aril.worker.queue.membership.classic.look_before_joining", sees_nobody)
        intruder = Member(kafka, topic)
        await intruder.consumer.start()
        with pytest.raises(GroupProtocolError, match="members of the consumer protocol"):
            await intruder.consumer.run()
        assert intruder.seen.assigned == []
        await intruder.consumer.stop()


class Client:
    """Stands for a client of aiokafka whose broker answers so."""

    def __init__(self, answer: Exception) -> None:
        self._answer = answer

    async def coordinator_lookup(self, *_: Any) -> int:
        """Give some node."""
        return 1

    async def send(self, *_: Any, **__: Any) -> Any:
        """Fail."""
        raise self._answer


UNKNOWN = [errors.IncompatibleBrokerVersion("unknown"), NotImplementedError("no such version")]


@pytest.mark.parametrize("answer", UNKNOWN)
async def test_older_brokers_serve_the_classic_protocol_as_before(answer: Exception) -> None:
    """And the other one is refused for good: no waiting helps."""
    await refuse_mixed_group(Client(answer), "g", "classic")
    with pytest.raises(GroupProtocolError, match=r"Apache Kafka 4\.0 or later") as told:
        await refuse_mixed_group(Client(answer), "g", "consumer")
    assert told.value.setting


@pytest.mark.parametrize("answer", [errors.KafkaConnectionError(), TimeoutError(), OSError()])
async def test_a_broker_that_does_not_answer_says_nothing(answer: Exception) -> None:
    """The group is looked at again at the next assignment."""
    await refuse_mixed_group(Client(answer), "g", "classic")
    await refuse_mixed_group(Client(answer), "g", "consumer")
