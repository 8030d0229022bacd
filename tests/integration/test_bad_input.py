"""Bad input, by a real worker on a real broker: typed errors, dead letters, unharmed neighbours."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import uuid
from typing import TYPE_CHECKING, Any

import msgpack
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from aril import JobConflict, JobFailed
from aril.schemas import ErrorCode, Job, Sampling, encode_request
from aril.worker.topics.admin import Contract, TopicPlan, ensure_topics
from tests.integration.conftest import TENANTS, Site
from tests.support.tiny import ATTENTION, make_tiny_adapter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.brokers import Kafka

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]

SHORT = {"max_tokens": 4, "temperature": 0.0, "ignore_eos": True}
numbers = itertools.count()


def broken_adapters(store: Path, model: Path) -> None:
    """Put folders into acme's store that cannot be served."""

    def good(name: str) -> Path:
        folder = store / "acme" / name
        make_tiny_adapter(folder, model, rank=4, alpha=8, targets=ATTENTION, rslora=False, seed=1)
        return folder

    tensors = good("corrupt") / "adapter_model.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-100])
    pickled = good("pickled")
    (pickled / "adapter_model.safetensors").rename(pickled / "adapter_model.bin")
    (store / "acme" / "outside").symlink_to(store / "blackbeard" / "pirate")
    shutil.copytree(store / "acme" / "corrupt", store / "acme" / "empty")
    (store / "acme" / "empty" / "adapter_config.json").unlink()


@pytest.fixture(scope="module")
def site(
    kafka: Kafka, tmp_path_factory: pytest.TempPathFactory, model: tuple[Path, Path]
) -> Iterator[Site]:
    """Run one worker for all of these."""
    backbone, adapters = model
    folder = tmp_path_factory.mktemp("bad")
    store = folder / "store"
    shutil.copytree(adapters, store)
    broken_adapters(store, backbone)
    stem = uuid.uuid4().hex[:6]
    contract = Contract(
        jobs_topic=f"jobs-{stem}", dlq_topic=f"dlq-{stem}", replies_prefix=f"replies-{stem}."
    )
    plan = TopicPlan(jobs_partitions=1, reply_partitions=8)
    asyncio.run(ensure_topics(kafka.bootstrap, contract, list(TENANTS), plan))
    made = Site(kafka, folder, backbone, store, contract)
    # One partition and a wide window: a bad job and its neighbour share a batch.
    with made.worker("one", window_ms=100, max_prompt_tokens=100, max_new_tokens=64).standing():
        yield made


async def raw(site: Site, value: bytes) -> int:
    """Append bytes to the jobs topic; return their offset."""
    producer = AIOKafkaProducer(bootstrap_servers=site.kafka.bootstrap, acks="all")
    await producer.start()
    try:
        placed = await producer.send_and_wait(site.contract.jobs_topic, value, partition=0)
    finally:
        await producer.stop()
    offset: int = placed.offset
    return offset


async def dead_letter(site: Site, offset: int) -> Any:
    """Wait for the dead letter of a record."""
    reader = AIOKafkaConsumer(
        site.contract.dlq_topic,
        bootstrap_servers=site.kafka.bootstrap,
        auto_offset_reset="earliest",
    )
    await reader.start()
    key = f"{site.contract.jobs_topic}/0/{offset}".encode()
    try:
        async with asyncio.timeout(60):
            while True:
                record = await reader.getone()
                if record.key == key:
                    return record
    finally:
        await reader.stop()


async def neighbour(site: Site) -> None:
    """Run a good job of another tenant."""
    async with site.client("blackbeard") as client:
        answer = await client.complete("hello", adapter="pirate", sampling=SHORT, timeout=60)
    assert len(answer.token_ids) == 4


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"adapter": "nobody"}, ErrorCode.UNKNOWN_ADAPTER),
        ({"adapter": "pirate"}, ErrorCode.UNKNOWN_ADAPTER),
        ({"adapter": f"terse@{'0' * 64}"}, ErrorCode.UNKNOWN_ADAPTER),
        ({"adapter": "corrupt"}, ErrorCode.ADAPTER_INVALID),
        ({"adapter": "pickled"}, ErrorCode.ADAPTER_INVALID),
        ({"adapter": "empty"}, ErrorCode.ADAPTER_INVALID),
        ({"adapter": "outside"}, ErrorCode.ADAPTER_INVALID),
        ({"prompt": "word " * 200}, ErrorCode.PROMPT_TOO_LONG),
        ({"token_ids": [1, 100_000]}, ErrorCode.INVALID_JOB),
        ({"sampling": {"max_tokens": 65}}, ErrorCode.LIMIT_EXCEEDED),
        ({"deadline": 0.001}, ErrorCode.DEADLINE_EXCEEDED),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_the_tenant_is_told_and_the_neighbour_is_served(
    site: Site, options: dict[str, Any], code: ErrorCode
) -> None:
    """A valid job that cannot be served ends in its typed error, beside one that is answered."""

    async def bad() -> JobFailed:
        asked = {"sampling": SHORT} | options
        if "prompt" not in asked and "token_ids" not in asked:
            asked["prompt"] = "hello"
        async with site.client("acme") as client:
            with pytest.raises(JobFailed) as caught:
                await client.complete(timeout=60, **asked)
        return caught.value

    failure, _ = await asyncio.gather(bad(), neighbour(site))
    assert failure.code is code


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"v": 2}, None),
        ({"priority": "high"}, None),
        ({"tenant": "../acme"}, "tenant"),
        ({"tenant": "shared"}, "tenant"),
        ({"tenant": "nowhere"}, "missing_reply_topic"),
        ({"messages": []}, None),
        ({"id": "a/b"}, "id"),
    ],
    ids=str,
)
async def test_an_unusable_record_is_put_aside_as_it_was(
    site: Site, change: dict[str, Any], reason: str | None
) -> None:
    """Its bytes are in the dead letters with the reason; its tenant, where known, is told too."""
    job = Job(id=f"bad-{next(numbers)}", tenant="acme", prompt="x", sampling=Sampling(max_tokens=4))
    value: bytes = msgpack.packb(msgpack.unpackb(encode_request(job)) | change)
    offset = await raw(site, value)
    letter, _ = await asyncio.gather(dead_letter(site, offset), neighbour(site))
    assert letter.value == value
    told = dict(letter.headers)
    assert told["aril-offset"] == str(offset).encode()
    if reason == "missing_reply_topic":
        assert told["aril-reason"] == b"missing_reply_topic"
    if reason is None:
        replies = (await site.logs("acme"))[job.id]
        assert [type(each).__name__ for each in replies] == ["ErrorRecord"]


@pytest.mark.parametrize("value", [b"", b"\xc1", b"\xdf\xff\xff\xff\xff", b"\x91" * 5_000])
async def test_bytes_that_are_no_record_are_put_aside(site: Site, value: bytes) -> None:
    """Nothing, a byte that msgpack never uses, a huge map, deep nesting: none does any harm."""
    offset = await raw(site, value)
    letter, _ = await asyncio.gather(dead_letter(site, offset), neighbour(site))
    assert (letter.value or b"") == value


async def test_a_job_sent_twice_is_answered_once(site: Site) -> None:
    """The same bytes again, and other bytes under its id: one answer, the others are told."""
    job = Job(id="twice", tenant="acme", prompt="hello", sampling=Sampling.model_validate(SHORT))
    await raw(site, encode_request(job))
    await raw(site, encode_request(job))
    offset = await raw(site, encode_request(job.model_copy(update={"prompt": "else"})))
    letter, _ = await asyncio.gather(dead_letter(site, offset), neighbour(site))
    assert dict(letter.headers)["aril-reason"] == b"duplicate_id"
    async with site.client("acme") as client:
        with pytest.raises(JobConflict):
            await client.complete("something else", job_id="twice", timeout=60)
    await neighbour(site)
    ends = [
        each for each in (await site.logs("acme"))["twice"] if type(each).__name__ != "TokensRecord"
    ]
    assert [type(each).__name__ for each in ends] == ["DoneRecord"]
