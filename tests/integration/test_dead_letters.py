"""`aril dlq`, by a real worker on a real broker: looked at, replayed, answered, purged."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import TYPE_CHECKING, Any

import msgpack
import pytest
from aiokafka import AIOKafkaProducer

from aril import Signer
from aril.arguments import USAGE
from aril.schemas import DoneRecord, Job, Sampling, encode_request
from aril.worker.topics.admin import ensure_topics
from tests.support.signing import put_key

if TYPE_CHECKING:
    from tests.integration.conftest import Site

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(240)]

SHORT = Sampling(max_tokens=4, temperature=0.0, ignore_eos=True)
PROMPT = "what nobody else may read"


class Operator:
    """Runs `aril dlq` on a site, and sends what goes wrong there."""

    def __init__(self, site: Site, **settings: object) -> None:
        self._site = site
        self._contract = site.contract
        self._environment = {
            "ARIL_BOOTSTRAP": site.kafka.bootstrap,
            "ARIL_JOBS_TOPIC": self._contract.jobs_topic,
            "ARIL_DLQ_TOPIC": self._contract.dlq_topic,
            "ARIL_REPLIES_PREFIX": self._contract.replies_prefix,
            **{f"ARIL_{name.upper()}": str(value) for name, value in settings.items()},
        }

    async def dlq(self, *arguments: str, code: int = 0) -> str:
        """Run it; return what it printed; of a mistake in usage, what it said of that."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "aril", "dlq", *arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=os.environ | self._environment,
        )
        out, err = await process.communicate()
        assert process.returncode == code, (out + err).decode()
        return (err if code == USAGE else out).decode()

    async def listed(self, *arguments: str) -> list[dict[str, Any]]:
        """Return what `ls --json` lists."""
        found: list[dict[str, Any]] = json.loads(await self.dlq("ls", "--json", *arguments))
        return found

    async def until_listed(self, count: int) -> list[dict[str, Any]]:
        """Wait for so many letters."""
        async with asyncio.timeout(60):
            while len(found := await self.listed()) < count:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.1)
        return found

    async def replay(self, *arguments: str, code: int = 0) -> list[dict[str, Any]]:
        """Return what `replay --jsonl` says, a letter each."""
        text = await self.dlq("replay", "--jsonl", "--yes", *arguments, code=code)
        return [json.loads(line) for line in text.splitlines()]

    async def send(
        self, value: bytes, key: bytes, partition: int | None = None, *headers: tuple[str, bytes]
    ) -> None:
        """Append a record to the jobs topic."""
        producer = AIOKafkaProducer(bootstrap_servers=self._site.kafka.bootstrap, acks="all")
        await producer.start()
        try:
            await producer.send_and_wait(
                self._contract.jobs_topic,
                value,
                key=key,
                partition=partition,
                headers=[("traceparent", b"00-1"), *headers],
            )
        finally:
            await producer.stop()

    async def answer(self, tenant: str, job_id: str) -> list[int]:
        """Wait for a job's end and return its tokens' ids."""
        async with asyncio.timeout(60):
            while True:
                records = (await self._site.logs(tenant)).get(job_id, [])
                if records and isinstance(records[-1], DoneRecord):
                    return [token for each in records[:-1] for token in getattr(each, "ids", ())]
                await asyncio.sleep(0.1)


async def test_from_a_bad_job_to_its_answer(site: Site) -> None:
    """A tenant's reply topic was missing: made, its job is replayed under its own id, once."""
    operator = Operator(site)
    job = Job(id="late", tenant="nowhere", prompt=PROMPT, sampling=SHORT)
    broken = msgpack.packb(msgpack.unpackb(encode_request(job)) | {"id": "broken", "kind": "jib"})
    async with site.worker("one"):
        await operator.send(encode_request(job), b"late")
        await operator.until_listed(1)
        await operator.send(broken, b"broken")
        newest, oldest = await operator.until_listed(2)
        assert (oldest["reason"], oldest["tenant"], oldest["job"]) == (
            ("missing_reply_topic", "nowhere", "late")
        )
        assert newest["reason"] == "unknown_kind"
        assert await operator.listed("--reason", "missing_reply_topic", "--since", "1h") == [oldest]
        assert await operator.listed("--tenant", "acme") == []

        table = await operator.dlq("ls")
        assert oldest["place"] in table
        told = await operator.dlq("show", oldest["place"])
        assert "max_tokens 4" in told
        assert PROMPT not in table + told
        assert PROMPT in await operator.dlq("show", "late", "--body")

        (refused,) = await operator.replay("late", code=1)
        assert (refused["outcome"], refused["code"]) == ("refused", "no_reply_topic")
        (refused,) = await operator.replay(newest["place"], code=1)
        assert refused["code"] == "not_a_job"
        await ensure_topics(site.kafka.bootstrap, site.contract, ["nowhere"])
        assert "would go to" in await operator.dlq("replay", "late", "--dry-run")
        assert await site.logs("nowhere") == {}

        # By the same worker, which remembers the id: it was never answered.
        (done,) = await operator.replay("late")
        assert done["outcome"] == "replayed"
        assert len(await operator.answer("nowhere", "late")) == 4
        (refused,) = await operator.replay("late", code=1)
        assert refused["code"] == "answered"
        (noted,) = await operator.listed("--id", "late")
        assert [each["to"] for each in noted["replayed"]] == [done["to"]]

        (forced,) = await operator.replay(newest["place"], "--force")
        assert forced["outcome"] == "replayed"
        again, *others = await operator.until_listed(3)
        assert again["place"] == forced["to"]
        shown = json.loads(await operator.dlq("show", again["place"], "--json", "--body"))[0]
        assert {each["name"]: each.get("value") for each in shown["headers"]} == {
            "traceparent": "00-1",
            "aril-replayed-from": newest["letter"],
        }
        assert [each["place"] for each in others] == [newest["place"], oldest["place"]]
        (refused,) = await operator.replay(newest["place"], "--force", code=1)
        assert refused["code"] == "replayed"
        assert len(await operator.listed()) == 3


async def test_a_signature_holds_in_its_own_place_and_time(site: Site) -> None:
    """A signed job is replayed as it was signed; once its time is over only its tenant can help."""
    keys, signer = site.folder / "keys", Signer.new()
    put_key(keys, "nowhere", signer)
    signing = {"tenant_from": "signature", "tenant_keys": keys}
    operator = Operator(site, **signing)
    topic, partition, key = site.contract.jobs_topic, 3, b"late"
    value = encode_request(Job(id="late", tenant="nowhere", prompt=PROMPT, sampling=SHORT))
    header = signer.header(tenant="nowhere", topic=topic, partition=partition, key=key, value=value)
    async with site.worker("one", **signing):
        await operator.send(value, key, partition, header)
        (letter,) = await operator.until_listed(1)
        assert letter["reason"] == "missing_reply_topic"
        await ensure_topics(site.kafka.bootstrap, site.contract, ["nowhere"])
        soon = ("late", "--force", "--signature-age", "0.001")
        (refused,) = await operator.replay(*soon, code=1)
        assert refused["code"] == "signature"
        assert "nowhere has to sign it and send it again" in refused["why"]
        assert await site.logs("nowhere") == {}
        (done,) = await operator.replay("late")
        assert done["to"].startswith(f"{topic}/{partition}/")
        assert len(await operator.answer("nowhere", "late")) == 4


async def test_a_purge_says_what_goes_and_deletes_it(site: Site) -> None:
    """Up to a place in a partition, up to a time, all: and no letter that was not counted."""
    if site.kafka.kind == "embedded":
        pytest.skip("the embedded broker deletes no records")
    operator = Operator(site)
    async with site.worker("one"):
        for at in range(6):
            await operator.send(b"\xc1", f"k{at}".encode())
        letters = await operator.until_listed(6)
        placed = [each["letter"].split("/")[1:] for each in letters]
        partition, offset = max(placed, key=lambda place: int(place[1]))
        upto = ("--upto", f"{partition}/{offset}")
        below = sum(place[0] == partition and int(place[1]) < int(offset) for place in placed)
        assert f"{below} letter" in await operator.dlq("purge", *upto, "--dry-run")
        assert len(await operator.listed()) == 6
        await operator.dlq("purge", *upto, "--yes")
        assert len(await operator.listed()) == 6 - below
        told = await operator.dlq("purge", "--until", "1h", "--yes")
        assert "0 letters below" in told
        told = await operator.dlq("purge", "--all", "--yes")
        assert f"{6 - below} letter" in told
        assert "not_msgpack" in told
        assert await operator.listed() == []
        assert "there is no partition 9" in await operator.dlq(
            "purge", "--upto", "9/1", "--yes", code=USAGE
        )
        await operator.send(b"\xc1", b"k9")
        assert len(await operator.until_listed(1)) == 1
