"""Whose batches are, how many there may be, and how long they are kept."""

from __future__ import annotations

import asyncio
import errno
import os
import time
from typing import TYPE_CHECKING, Any

from aril.gateway.keys import hash_of
from aril.gateway.stored.batches import RECORD, Batches
from aril.gateway.stored.disk import write_new
from aril.gateway.stored.ids import BATCH, new_id
from aril.gateway.stored.records import Batch
from tests.support.batch_site import chat_line
from tests.support.gateway_files import batch_of, jsonl, over, start, upload, wanted
from tests.support.gateway_site import Gateway

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from aril.memory import MemoryBroker
    from tests.support.asgi import Exchange
    from tests.support.remembering_worker import RememberingWorker


async def test_a_tenant_has_only_so_many_batches(
    broker: MemoryBroker, batch_settings: dict[str, Any], answering: RememberingWorker
) -> None:
    """That are not over; and only so many of them are worked on."""
    answering.gate.clear()
    bounds: dict[str, Any] = {
        "gateway_open_batches": 3,
        "gateway_running_batches": 2,
        "gateway_batch_jobs": 2,
    }
    async with Gateway(broker, **batch_settings, **bounds).running() as gateway:
        made = [
            await start(gateway, *(chat_line(f"k{at}", f"{name} {at}") for at in range(4)))
            for name in "abc"
        ]
        refused = await gateway.call("POST", "/v1/batches", wanted(made[0]["input_file_id"]))
        error = (await refused.json())["error"]
        assert (refused.status, error["code"], error["limit"]) == (429, "overloaded", 3)
        await answering.until(lambda: len(answering.first) == 4)
        asked = {prompt.split()[0] for prompt in answering.ids}
        assert asked == {"a", "b"}
        assert (await batch_of(gateway, made[2]["id"]))["status"] == "validating"
        answering.gate.set()
        for each in made:
            assert (await over(gateway, each["id"]))["request_counts"]["completed"] == 4


async def test_batches_are_their_tenants(
    broker: MemoryBroker, batch_settings: dict[str, Any], tmp_path: Path
) -> None:
    """Another's, and a batch of another's file, is told as one that never was."""
    keys = tmp_path / "keys.toml"
    keys.write_text(
        "".join(
            f'[[keys]]\nname = "{tenant}"\ntenant = "{tenant}"\nsha256 = "{hash_of(tenant)}"\n'
            for tenant in ("acme", "zeta")
        )
    )
    async with Gateway(broker, **batch_settings, gateway_keys=keys).running() as gateway:
        acme, zeta = ({"authorization": f"Bearer {each}"} for each in ("acme", "zeta"))
        file = await upload(gateway, jsonl(chat_line("k", "p")), headers=acme)
        assert (await gateway.call("POST", "/v1/batches", wanted(file), **zeta)).status == 404
        made = await (await gateway.call("POST", "/v1/batches", wanted(file), **acme)).json()
        for method, path in (("GET", ""), ("POST", "/cancel")):
            others = [
                await gateway.call(method, f"/v1/batches/{each}{path}", **zeta)
                for each in (made["id"], "batch_" + "0" * 32)
            ]
            assert [each.status for each in others] == [404, 404]
            assert await others[0].json() == await others[1].json()
        assert (await (await gateway.call("GET", "/v1/batches", **zeta)).json())["data"] == []
        (seen,) = (await (await gateway.call("GET", "/v1/batches", **acme)).json())["data"]
        assert (seen["id"], seen["cancelling_at"]) == (made["id"], None)


async def test_a_key_makes_one_batch(
    broker: MemoryBroker, batch_settings: dict[str, Any], answering: RememberingWorker
) -> None:
    """However often it is sent, at whichever gateway; for another request it is refused."""
    key = {"idempotency_key": "night-1"}
    async with (
        Gateway(broker, **batch_settings).running() as one,
        Gateway(broker, **batch_settings).running() as two,
    ):
        body = wanted(await upload(one, jsonl(chat_line("k", "p"))))
        sent = [each.call("POST", "/v1/batches", body, **key) for each in (one, two, one, two)]
        made = {(await each.json())["id"] for each in await asyncio.gather(*sent)}
        assert len(made) == 1
        told = await over(two, made.pop())
        assert told["status"] == "completed"
        again = await one.call("POST", "/v1/batches", body, **key)
        assert await again.json() == told
        other = await one.call("POST", "/v1/batches", body | {"metadata": {"a": "b"}}, **key)
        assert (other.status, (await other.json())["error"]["code"]) == (
            422,
            "idempotency_key_reused",
        )
        bad = await one.call("POST", "/v1/batches", body, idempotency_key="no blanks")
        assert bad.status == 400
    assert len(answering.first) == 1


async def test_a_key_whose_request_was_killed(
    working: Gateway, answering: RememberingWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before its batch was there: the same request makes it, another does not take its place."""
    one, two = [await upload(working, jsonl(chat_line("k", each))) for each in ("p", "q")]

    def killed(path: Path, data: bytes) -> bool:
        if path.name == RECORD:
            raise OSError(errno.EIO, "killed")
        return write_new(path, data)

    async def sent(file: str) -> Exchange:
        body = wanted(file)
        return await working.call("POST", "/v1/batches", body, idempotency_key="night-2")

    with monkeypatch.context() as patched:
        patched.setattr("aril.gateway.stored.batches.write_new", killed)
        assert (await sent(one)).status == 503
    assert (await sent(two)).status == 422
    made = await sent(one)
    assert made.status == 200
    told = await over(working, (await made.json())["id"])
    assert told["request_counts"]["completed"] == 1
    assert "q" not in answering.ids


async def test_pages(working: Gateway) -> None:
    """The newest first, so many behind one."""
    made = [(await start(working, chat_line("k", "p")))["id"] for _ in range(3)]
    first = await (await working.call("GET", "/v1/batches?limit=2")).json()
    assert [each["id"] for each in first["data"]] == [made[2], made[1]]
    assert first["has_more"]
    rest = await (await working.call("GET", f"/v1/batches?after={first['last_id']}")).json()
    assert [each["id"] for each in rest["data"]] == [made[0]]
    assert not rest["has_more"]
    assert (await working.call("GET", "/v1/batches?limit=101")).status == 400


def test_what_has_been_kept_long_enough_is_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches that are over, keys, and what never became a batch; nothing that is under way."""
    batches, content = Batches(tmp_path / "acme"), tmp_path / "content"
    content.write_bytes(b"{}")

    def made(**told: Any) -> str:
        batch = Batch(
            id=new_id(BATCH),
            endpoint="/v1/completions",
            input_file_id="file-x",
            completion_window="24h",
            created_at=0,
            expires_at=1,
            **told,
        )
        batches.create(batch, content)
        return batch.id

    now = time.time()
    old, young = (made(status="completed", ended_at=int(now) - days * 86_400) for days in (3, 1))
    running = made(status="in_progress")
    lost = tmp_path / "acme" / "batches" / new_id(BATCH)
    lost.mkdir()
    assert batches.claim("key", old) == batches.claim("key", young) == old
    batches.sweep(now - 2 * 86_400)
    assert batches.newest_first() == sorted([young, running, lost.name], reverse=True)
    monkeypatch.setattr("time.time", lambda: now + 4_000)
    batches.sweep(now + 4_000 - 2 * 86_400)
    assert batches.newest_first() == sorted([young, running], reverse=True)
    assert batches.claim("key", young) == old  # known as long as batches are kept
    for path in (tmp_path / "acme" / "keys").iterdir():
        os.utime(path, (0, 0))
    batches.sweep(now - 2 * 86_400)
    assert batches.claim("key", young) == young
