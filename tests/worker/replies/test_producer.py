"""The writer on a real broker: topics that are missing, dead letters, and the way back."""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition, errors
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.protocol.metadata import MetadataRequest_v5
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.structs import BrokerMetadata

from aril.worker.job import Partition, Record
from aril.worker.replies.producer import AppendError, LogWriter
from aril.worker.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.brokers import Kafka

pytestmark = pytest.mark.kafka


@pytest.fixture
async def writer(kafka: Kafka) -> AsyncIterator[LogWriter]:
    """Connect a writer."""
    settings = load_settings(flags={"bootstrap": kafka.bootstrap}).settings
    connected = LogWriter(settings, "test")
    await connected.start()
    yield connected
    await connected.stop()


async def make_topic(kafka: Kafka, partitions: int) -> str:
    """Create a topic and return its name."""
    name = f"t-{uuid.uuid4().hex[:8]}"
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(name, partitions, 1)])
    await admin.close()
    return name


async def read_all(kafka: Kafka, topic: str, partition: int) -> list[Any]:
    """Read a partition from its start to its end."""
    reader = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap)
    await reader.start()
    where = TopicPartition(topic, partition)
    reader.assign([where])
    await reader.seek_to_beginning(where)
    end = (await reader.end_offsets([where]))[where]
    found: list[Any] = []
    while await reader.position(where) < end:
        found += [each for many in (await reader.getmany(timeout_ms=500)).values() for each in many]
    await reader.stop()
    return found


async def test_records_land_in_order_on_the_partition_that_was_named(
    kafka: Kafka, writer: LogWriter
) -> None:
    """One append of several records keeps their order, key and partition."""
    topic = await make_topic(kafka, 3)
    assert await writer.partitions(topic) == 3
    assert writer.known_partitions(topic) == 3
    await writer.append(topic, 2, b"job", [b"1", b"2", b"3"])
    assert [(each.key, each.value) for each in await read_all(kafka, topic, 2)] == [
        (b"job", b"1"),
        (b"job", b"2"),
        (b"job", b"3"),
    ]


async def test_a_missing_topic_is_told_soon_and_found_once_it_exists(
    kafka: Kafka, writer: LogWriter
) -> None:
    """No long wait for a topic that is not there; after its creation it is seen at once."""
    name = f"t-{uuid.uuid4().hex[:8]}"
    assert await writer.partitions(name) is None
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(name, 2, 1)])
    await admin.close()
    writer.forget_missing(name)
    async with asyncio.timeout(10):
        while await writer.partitions(name) is None:
            writer.forget_missing(name)
    assert writer.known_partitions(name) == 2


async def test_a_dead_letter_keeps_the_bytes_and_says_why(kafka: Kafka, writer: LogWriter) -> None:
    """Value and headers as they were, the reason beside them, the record's place as key."""
    topic = await make_topic(kafka, 1)
    now = int(time.time() * 1_000)
    record = Record(Partition("jobs", 5), 17, now, b"k", b"\xc1junk", [("traceparent", b"00")])
    await writer.put_aside(topic, record, "malformed", "invalid_job", "not a map")
    await writer.put_aside(topic, record, "malformed", "invalid_job", "not a map")
    first, second = await read_all(kafka, topic, 0)
    assert first.key == second.key == b"jobs/5/17"
    assert first.value == b"\xc1junk"
    assert dict(first.headers) == {
        "traceparent": b"00",
        "aril-reason": b"malformed",
        "aril-code": b"invalid_job",
        "aril-message": b"not a map",
        "aril-topic": b"jobs",
        "aril-partition": b"5",
        "aril-offset": b"17",
        "aril-timestamp": str(now).encode(),
        "aril-key": b"k",
    }


async def test_a_header_of_ours_that_the_sender_set_is_not_ours(
    kafka: Kafka, writer: LogWriter
) -> None:
    """Whoever takes the first or the last header of a name learns the same, and the truth."""
    topic = await make_topic(kafka, 1)
    forged = [("aril-topic", b"other"), ("aril-key", b"x"), ("aril-cut", b""), ("mine", b"1")]
    record = Record(Partition("jobs", 5), 17, 0, None, None, forged)
    await writer.put_aside(topic, record, "malformed", "invalid_job", "not a map")
    (letter,) = await read_all(kafka, topic, 0)
    names = [name for name, _ in letter.headers]
    assert len(names) == len(set(names))
    told = dict(letter.headers)
    assert (told["mine"], told["aril-topic"]) == (b"1", b"jobs")
    assert not {"aril-key", "aril-cut"} & set(names)  # it had no key, and is whole


@pytest.mark.parametrize("large", ["value", "key", "headers"])
async def test_a_dead_letter_too_large_is_cut_and_says_so(
    kafka: Kafka, writer: LogWriter, large: str
) -> None:
    """A record as large as a topic takes has no room for our headers: it must not be stuck."""
    topic = await make_topic(kafka, 1)
    size = {each: 1_048_500 if each == large else 10 for each in ("value", "key", "headers")}
    record = Record(
        Partition("jobs", 5), 17, 0, b"k" * size["key"], b"v" * size["value"],
        [("long", b"h" * size["headers"])],
    )  # fmt: skip
    await writer.put_aside(topic, record, "malformed", "invalid_job", "not a map")
    (letter,) = await read_all(kafka, topic, 0)
    told = dict(letter.headers)
    assert told["aril-cut"] == str(size["value"]).encode()
    assert told["aril-offset"] == b"17"
    assert letter.value == b"v" * min(size["value"], 65_536)
    assert told["aril-key"] == b"k" * min(size["key"], 1_024)
    assert "long" not in told


async def test_dead_letters_of_one_poll_go_out_together(
    kafka: Kafka, writer: LogWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is awaited by itself, and still a request carries what is there: a flood costs few."""
    topic = await make_topic(kafka, 3)
    assert await writer.partitions(topic) == 3
    await writer.append(topic, 0, b"k", [b"the connection is there"])
    producer = writer._producer
    assert producer is not None
    send, requests = producer.client.send, list[ProduceRequest]()

    async def counted(node: int, request: Any, **more: Any) -> Any:
        if isinstance(request, ProduceRequest):
            requests.append(request)
        return await send(node, request, **more)

    monkeypatch.setattr(producer.client, "send", counted)
    letters = [Record(Partition("jobs", 5), at, 0, b"k", b"\xc1junk", []) for at in range(200)]
    async with asyncio.TaskGroup() as tasks:
        for each in letters:
            tasks.create_task(
                writer.put_aside(topic, each, "malformed", "invalid_job", "not a map")
            )
    assert len(requests) <= 2 * 3  # one a partition, and what came while it was under way
    found = [each for at in range(3) for each in await read_all(kafka, topic, at)]
    assert len({each.key for each in found}) == 200 + 1


async def test_a_record_too_large_is_hopeless_and_the_writer_goes_on(
    kafka: Kafka, writer: LogWriter
) -> None:
    """What would fail again is told apart from what may work later."""
    topic = await make_topic(kafka, 1)
    with pytest.raises(AppendError, match="MessageSizeTooLarge") as caught:
        await writer.append(topic, 0, b"k", [b"x" * 2_000_000])
    assert caught.value.hopeless
    await writer.append(topic, 0, b"k", [b"small"])


async def test_a_topic_is_gone_only_where_the_brokers_say_so(
    kafka: Kafka, writer: LogWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client calls a topic unknown, too, when nobody has told it of any in time."""
    topic = await make_topic(kafka, 1)
    producer = writer._producer
    assert producer is not None

    async def unknown(*_: object, **__: object) -> None:
        raise errors.UnknownTopicOrPartitionError

    monkeypatch.setattr(producer, "send", unknown)

    async def hopeless(name: str) -> bool:
        with pytest.raises(AppendError, match="UnknownTopicOrPartition") as caught:
            await writer.append(name, 0, b"k", [b"v"])
        return caught.value.hopeless

    assert await writer.partitions(topic) == 1
    assert not await hopeless(topic)
    assert await hopeless(f"t-{uuid.uuid4().hex[:8]}")
    producer.client.cluster._brokers = {99: BrokerMetadata(99, "127.0.0.1", 1, None)}
    assert not await hopeless(topic)


async def test_when_nothing_gets_through_the_producer_is_replaced(
    kafka: Kafka, writer: LogWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A doubtful append raises, and the next one goes through a new producer."""
    monkeypatch.setattr("aril.worker.replies.producer.STUCK_SECONDS", 0.0)
    topic = await make_topic(kafka, 1)
    old = writer._producer
    assert old is not None

    async def times_out(*_: object, **__: object) -> None:
        raise errors.KafkaTimeoutError

    monkeypatch.setattr(old, "send", times_out)
    with pytest.raises(AppendError, match="KafkaTimeoutError") as caught:
        await writer.append(topic, 0, b"k", [b"lost"])
    assert not caught.value.hopeless
    await writer.append(topic, 0, b"k", [b"kept"])
    assert writer._producer is not old
    assert [each.value for each in await read_all(kafka, topic, 0)] == [b"kept"]


@pytest.mark.parametrize(
    "error", [errors.KafkaTimeoutError(), AssertionError("no such partition"), TypeError("None")]
)
async def test_what_one_partition_fails_with_is_that_appends_failure(
    kafka: Kafka, writer: LogWriter, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """The others' producer goes on, whatever the client trips over; nothing is hopeless."""
    topic = await make_topic(kafka, 2)
    producer = writer._producer
    assert producer is not None
    send = producer.send

    async def fails(name: str, value: Any, key: Any, partition: int, **more: Any) -> Any:
        if partition == 1:
            raise error
        return await send(name, value, key, partition, **more)

    monkeypatch.setattr(producer, "send", fails)
    for _ in range(3):
        with pytest.raises(AppendError, match=type(error).__name__) as caught:
            await writer.append(topic, 1, b"k", [b"lost"])
        assert not caught.value.hopeless
        await writer.append(topic, 0, b"k", [b"kept"])
    assert writer._producer is producer
    assert len(await read_all(kafka, topic, 0)) == 3


async def test_a_producer_that_has_ended_is_replaced_at_once(
    kafka: Kafka, writer: LogWriter
) -> None:
    """Its appends fail for a reason that no waiting cures."""
    topic = await make_topic(kafka, 1)
    await writer.append(topic, 0, b"k", [b"first"])
    old = writer._producer
    assert old is not None
    await old.stop()
    with pytest.raises(AppendError):
        await writer.append(topic, 0, b"k", [b"lost"])
    await writer.append(topic, 0, b"k", [b"kept"])
    assert writer._producer is not old


async def test_a_look_up_has_no_broker_create_a_topic(
    writer: LogWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kafka's default is to create what a client asks for: ours says each time that it must not."""
    producer = writer._producer
    assert producer is not None
    send, asked = producer.client.send, []

    async def watched(node: int, request: Any, **more: Any) -> Any:
        asked.append(request)
        return await send(node, request, **more)

    monkeypatch.setattr(producer.client, "send", watched)
    name = f"t-{uuid.uuid4().hex[:8]}"
    assert await writer.partitions(name) is None
    [request] = asked
    assert request.build(MetadataRequest_v5) == MetadataRequest_v5([name], False)  # noqa: FBT003 - theirs
    assert name not in producer.client._topics


async def test_a_broker_that_does_not_answer_is_passed_over(
    writer: LogWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any other may be asked; where none answers, that is said."""
    producer = writer._producer
    assert producer is not None
    # Beside us it would look for brokers as soon as one fails, and find the real one again.
    monkeypatch.setattr(producer.client, "force_metadata_update", lambda: None)
    cluster = producer.client.cluster
    gone = BrokerMetadata(99, "127.0.0.1", 1, None)
    cluster._brokers[99] = gone
    assert await writer.partitions(f"t-{uuid.uuid4().hex[:8]}") is None
    cluster._brokers = {99: gone}
    with pytest.raises(errors.KafkaError):
        await writer.partitions(f"t-{uuid.uuid4().hex[:8]}")


async def test_an_append_tells_the_brokers_time(kafka: Kafka, writer: LogWriter) -> None:
    """Where the topic has log-append time, as the contract demands; ours is the brokers' here."""
    if kafka.kind == "embedded":
        pytest.skip("the embedded broker gives no time of its own")
    name = f"t-{uuid.uuid4().hex[:8]}"
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    told = {"message.timestamp.type": "LogAppendTime"}
    await admin.create_topics([NewTopic(name, 1, 1, topic_configs=told)])
    await admin.close()
    writer.clock.saw(0.0, 1_000_000.0)
    assert writer.clock.now_ms(2_000_000.0) == 1_000_000.0  # nothing was appended yet
    await writer.partitions(name)
    await writer.append(name, 0, b"k", [b"v"])
    now = time.time() * 1_000
    assert abs(writer.clock.now_ms(now) - now) < 1_000
