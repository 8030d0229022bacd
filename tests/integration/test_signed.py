"""Signed jobs on a real broker: a neighbour who forges, keys that change, settings that miss."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import pytest
from aiokafka import AIOKafkaProducer

from aril import Client, Signer
from aril.schemas import Cancel, DoneRecord, Job, encode_request, reply_partition
from tests.support.signing import put_key
from tests.support.topic_records import read_topic

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.conftest import Site
    from tests.support.workers import WorkerProcess

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]

PARTITIONS = 8
LONG = {"max_tokens": 400, "ignore_eos": True}
SHORT = {"max_tokens": 4, "temperature": 0.0, "ignore_eos": True}


@dataclass
class Signing:
    """A site where tenants sign: the folder of keys, and a signer for each of two."""

    site: Site
    keys: Path
    acme: Signer
    blackbeard: Signer

    def worker(self, name: str, **settings: object) -> WorkerProcess:
        """Return a worker that asks for signatures."""
        signed = {"tenant_from": "signature", "tenant_keys": self.keys}
        return self.site.worker(name, **signed | settings)

    def client(self, tenant: str, signer: Signer | None) -> Client:
        """Return a tenant's client that signs with this key."""
        contract = self.site.contract
        return Client(
            self.site.kafka.bootstrap,
            tenant,
            jobs_topic=contract.jobs_topic,
            replies_prefix=contract.replies_prefix,
            signer=signer,
        )

    async def records(self, topic: str) -> list[Any]:
        """Return all records of a topic."""
        return await read_topic(self.site.kafka.bootstrap, topic)

    async def reasons(self, count: int) -> Counter[str]:
        """Wait for so many dead letters; return how many there are of each reason."""
        async with asyncio.timeout(60):
            while len(found := await self.records(self.site.contract.dlq_topic)) < count:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.1)
        return Counter(dict(record.headers)["aril-reason"].decode() for record in found)


@pytest.fixture
def signing(site: Site, tmp_path: Path) -> Signing:
    """Give two tenants a key each."""
    made = Signing(site, tmp_path / "keys", Signer.new(), Signer.new())
    put_key(made.keys, "acme", made.acme)
    put_key(made.keys, "blackbeard", made.blackbeard)
    return made


class Forger:
    """A producer that may write to the jobs topic, has a key of its own, and reads along."""

    def __init__(self, signing: Signing) -> None:
        self._topic = signing.site.contract.jobs_topic
        self._own = signing.blackbeard
        self._posing = Signer(signing.blackbeard._key, key_id=signing.acme.key_id)
        self._producer = AIOKafkaProducer(
            bootstrap_servers=signing.site.kafka.bootstrap, acks="all"
        )

    async def __aenter__(self) -> Self:
        await self._producer.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._producer.stop()

    async def put(self, place: int, key: bytes, value: bytes, headers: list[Any]) -> None:
        """Append a record."""
        await self._producer.send_and_wait(
            self._topic, value, key=key, partition=place, headers=headers
        )

    async def forge(self, request: Job | Cancel, *, how: str) -> None:
        """Append a request in acme's name, or under a name of one's own."""
        place, key = reply_partition(request.id, PARTITIONS), request.id.encode()
        value = encode_request(request)
        signer, tenant = {
            "unsigned": (None, ""),
            "posing": (self._posing, "acme"),
            "unknown": (self._own, "acme"),
            "own": (self._own, "blackbeard"),
        }[how]
        headers = (
            []
            if signer is None
            else [
                signer.header(
                    tenant=tenant, topic=self._topic, partition=place, key=key, value=value
                )
            ]
        )
        await self.put(place, key, value, headers)

    async def replay(self, record: Any) -> None:
        """Append a record of somebody else's again: where it was, elsewhere, and changed."""
        headers = list(record.headers)
        await self.put(record.partition, record.key, record.value, headers)
        await self.put((record.partition + 1) % PARTITIONS, record.key, record.value, headers)
        await self.put(record.partition, record.key, record.value + b"\0", headers)


async def test_a_forger_cannot_touch_its_neighbour(signing: Signing) -> None:
    """While acme's job runs, its cancel, its twin and its copies are forged: nothing of acme moves.

    The forger's own signed job is served beside it.
    """
    topic = signing.site.contract.jobs_topic
    async with (
        signing.worker("one") as worker,
        signing.client("acme", signing.acme) as acme,
        signing.client("blackbeard", signing.blackbeard) as beard,
        Forger(signing) as forger,
    ):
        begun = asyncio.Event()
        stream = acme.stream("a long story", job_id="story", sampling=LONG, timeout=150)
        ids: list[int] = []

        async def read() -> None:
            async for event in stream:
                begun.set()
                ids.extend(getattr(event, "ids", ()))

        reading = asyncio.create_task(read())
        await begun.wait()
        for how in ("unsigned", "posing", "unknown", "own"):
            await forger.forge(Cancel(id="story", tenant="acme"), how=how)
            await forger.forge(Job(id=f"{how}-1", tenant="acme", prompt="x"), how=how)
        [record] = [
            each
            for each in await signing.records(topic)
            if each.key == b"story" and len(each.value) > 100
        ]
        await forger.replay(record)
        own = await beard.complete("hello", sampling=SHORT, timeout=100)
        assert len(own.token_ids) == 4
        await reading
        answer = await stream.result()
        assert (len(answer.token_ids), answer.resets) == (400, 0)
        assert ids == list(answer.token_ids)
        assert await signing.reasons(10) == {
            "unsigned": 2,
            "signature_invalid": 4,  # two by a false key, a copy elsewhere, a copy changed
            "signature_key_unknown": 2,
            "tenant_mismatch": 2,
        }
        assert await worker.metric("aril_dead_letters_total") == 10
        assert await worker.metric("aril_jobs_duplicate_total") == 1  # the copy in its place
    logs = await signing.site.logs("acme")
    assert set(logs) == {"story"}
    assert [type(record) for record in logs["story"]].count(DoneRecord) == 1
    # The one job that the forger signed in acme's name is told to the forger.
    assert "own-1" in await signing.site.logs("blackbeard")


@pytest.mark.slow  # the folder of keys is read each five seconds
async def test_keys_rotate_while_a_worker_runs(signing: Signing, tmp_path: Path) -> None:
    """A new key works beside the old one; once the old one's file is gone it signs nothing."""
    old, new = signing.acme, Signer.new()
    async with signing.worker("one") as worker:

        async def until_keys(count: int) -> None:
            async with asyncio.timeout(60):
                while await worker.metric("aril_tenant_keys") != count:  # noqa: ASYNC110 - another process
                    await asyncio.sleep(0.1)

        async def ask(signer: Signer) -> int:
            async with signing.client("acme", signer) as client:
                answer = await client.complete("hello", sampling=SHORT, timeout=60)
            return len(answer.token_ids)

        await until_keys(2)
        assert await ask(old) == 4
        put_key(signing.keys, "acme", new)
        await until_keys(3)
        assert await ask(new) == 4
        assert await ask(old) == 4
        (signing.keys / "acme" / f"{old.key_id}.pem").unlink()
        await until_keys(2)
        async with signing.client("acme", old) as client:
            (await client.stream("hello", sampling=SHORT).start()).detach()
        assert await signing.reasons(1) == {"signature_key_unknown": 1}
        new.save(tmp_path / "new.key")
        assert await asyncio.to_thread(send, signing, tmp_path / "new.key") == 0
        assert await signing.reasons(1) == {"signature_key_unknown": 1}


def send(signing: Signing, key: Path) -> int:
    """Ask by the command line, signing with a key; return its exit code."""
    contract = signing.site.contract
    done = subprocess.run(
        [sys.executable, "-m", "aril", "send", "-t", "acme", "--raw", "--max-tokens", "4", "hello"],
        env=os.environ
        | {
            "ARIL_BOOTSTRAP": signing.site.kafka.bootstrap,
            "ARIL_JOBS_TOPIC": contract.jobs_topic,
            "ARIL_REPLIES_PREFIX": contract.replies_prefix,
            "ARIL_KEY": str(key),
        },
        capture_output=True,
        check=False,
        timeout=100,
    )
    return done.returncode


async def test_an_old_record_is_nobodys(signing: Signing) -> None:
    """A record whose signature is older than allowed is put aside; one in time is served."""
    late = Signer(signing.acme._key, clock=lambda: time.time() - 61)
    async with signing.worker("one", signature_age=60):
        async with signing.client("acme", late) as client:
            (await client.stream("hello", sampling=SHORT).start()).detach()
        assert await signing.reasons(1) == {"signature_out_of_time": 1}
        in_time = Signer(signing.acme._key, clock=lambda: time.time() - 30)
        async with signing.client("acme", in_time) as client:
            answer = await client.complete("hello", sampling=SHORT, timeout=60)
        assert len(answer.token_ids) == 4


@pytest.mark.parametrize(
    ("environ", "line"),
    [
        ({"ARIL_TENANT_FROM": "signature"}, "needs tenant_keys"),
        ({"ARIL_TENANT_KEYS": "/keys"}, "set tenant_from=signature, or leave them out"),
    ],
)
def test_half_of_the_settings_is_exit_2(environ: dict[str, str], line: str) -> None:
    """Neither signatures without keys nor keys that nobody asks for: one line, nothing started."""
    done = subprocess.run(
        [sys.executable, "-m", "aril", "worker"],
        env=os.environ | environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert line in done.stderr


async def test_a_folder_that_is_not_there_ends_the_worker(signing: Signing) -> None:
    """A worker without its keys would refuse everything for good: exit code 1, one line."""
    worker = signing.worker("one", tenant_keys="/nowhere/keys")
    async with worker.started():
        assert await worker.wait() == 1
    assert "tenant keys: /nowhere/keys: No such file or directory" in worker.log.read_text()
