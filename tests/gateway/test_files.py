"""`/v1/files`: uploads of any cut, their bounds, whose they are, and how long they are kept."""

from __future__ import annotations

import asyncio
import errno
import os
from typing import TYPE_CHECKING, Any

import pytest

from aril.gateway.keys import hash_of
from aril.gateway.stored import disk
from aril.gateway.stored.files import Files
from aril.gateway.stored.store import Store, StoreError
from tests.support.asgi import Exchange
from tests.support.gateway_files import BOUNDARY, form, post_form, upload, wanted
from tests.support.gateway_site import Gateway

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from aril.memory import MemoryBroker

CONTENT = bytes(range(256)) * 40 + b"\r\n--the-boundar\r\n--the-boundary\n"
PURPOSE = ("purpose", b"batch", None)


@pytest.fixture
async def keeping(broker: MemoryBroker, tmp_path: Path) -> AsyncIterator[Gateway]:
    """Run a gateway that keeps files."""
    settings: dict[str, Any] = {"gateway_batches": tmp_path / "kept", "gateway_file_bytes": 20_000}
    async with Gateway(broker, **settings).running() as gateway:
        yield gateway


def left(folder: Path) -> list[str]:
    """Return the names of all that is kept of files."""
    return sorted(path.name for path in folder.glob("*/files/*"))


@pytest.mark.parametrize("chunk", [1, 7, 1_000, 1 << 30])
async def test_a_file_comes_back_as_it_was(keeping: Gateway, chunk: int) -> None:
    """However it is cut on its way, and whatever looks like a boundary in it."""
    body = form([("file", CONTENT, "folder/my file.jsonl"), PURPOSE])
    exchange = await post_form(keeping, body, chunk=chunk)
    told = await exchange.json()
    assert (exchange.status, told["bytes"], told["purpose"]) == (200, len(CONTENT), "batch")
    assert told["filename"] == "folder/my file.jsonl"
    assert told["expires_at"] - told["created_at"] == 30 * 86_400
    assert await (await keeping.call("GET", f"/v1/files/{told['id']}")).json() == told
    content = await keeping.call("GET", f"/v1/files/{told['id']}/content")
    assert await content.whole() == CONTENT
    assert content.answer_headers["content-length"] == str(len(CONTENT))


async def test_what_is_no_upload(keeping: Gateway, tmp_path: Path) -> None:
    """Each has its own typed error, and nothing is left of it."""
    file = ("file", b"{}\n", "in.jsonl")
    late = form([file, PURPOSE])
    cases: list[tuple[bytes, int, str | None, str | None]] = [
        (form([file]), 400, "invalid_job", "purpose"),
        (form([file, ("purpose", b"fine-tune", None)]), 400, "invalid_job", "purpose"),
        (form([PURPOSE]), 400, "invalid_job", "file"),
        (form([PURPOSE, ("file", b"", "in.jsonl")]), 400, "invalid_job", "file"),
        (form([file, file, PURPOSE]), 400, "invalid_job", "file"),
        (form([file, PURPOSE, ("colour", b"red", None)]), 400, "invalid_job", "colour"),
        (form([file, PURPOSE, ("expires_after[seconds]", b"5", None)]), 400, "invalid_job",
         "expires_after.seconds"),
        (form([file, ("purpose", b"x" * 2_000, None)]), 400, "invalid_job", None),
        (form([file, *((f"f{at}", b"", None) for at in range(20))]), 400, "invalid_job", None),
        (form([(("file"), b"x" * 20_001, "in.jsonl"), PURPOSE]), 413, "body_too_large", None),
        (late[: late.index(b"batch")], 400, "invalid_job", None),
        (b"no form at all", 400, "invalid_job", None),
    ]  # fmt: skip
    for body, status, code, param in cases:
        exchange = await post_form(keeping, body, chunk=64)
        error = (await exchange.json())["error"]
        assert (exchange.status, error["code"], error["param"]) == (status, code, param), body[:200]
    assert (await keeping.call("POST", "/v1/files", {})).status == 415
    assert left(tmp_path / "kept") == []


async def test_a_body_that_says_it_is_too_long_is_not_read(keeping: Gateway) -> None:
    """It is refused at its head, with the bound."""
    exchange = await post_form(keeping, form([PURPOSE]), headers={"content-length": "200000"})
    error = (await exchange.json())["error"]
    assert (exchange.status, error["limit"], error["given"]) == (413, 20_000, 200_000)


async def test_a_caller_who_leaves_leaves_nothing(keeping: Gateway, tmp_path: Path) -> None:
    """An upload that breaks off was none."""
    body = form([("file", CONTENT, "in.jsonl"), PURPOSE])
    headers = {
        "content-type": f"multipart/form-data; boundary={BOUNDARY}",
        "transfer-encoding": "chunked",
    }
    cut = body[:-20]

    class Cut(Exchange):
        async def _receive(self) -> Any:
            if self.received >= len(cut):
                return {"type": "http.disconnect"}
            self.received += 500
            return {
                "type": "http.request",
                "body": cut[self.received - 500 : self.received],
                "more_body": True,
            }

    async with Cut(keeping.app, "POST", "/v1/files", cut, headers) as exchange:
        await exchange.whole()
    assert exchange.status == 499
    assert left(tmp_path / "kept") == []


async def test_nobody_else_can_read_the_folder(keeping: Gateway, tmp_path: Path) -> None:
    """Prompts are in it: folders and files are this user's alone, whatever its umask."""
    before = os.umask(0)
    try:
        await upload(keeping, b"{}\n")
    finally:
        os.umask(before)
    paths = [tmp_path / "kept", *(tmp_path / "kept").rglob("*")]
    assert len(paths) > 4
    assert {path.stat().st_mode & 0o077 for path in paths} == {0}


async def test_pages(keeping: Gateway) -> None:
    """The newest first, so many behind one; the other way round where that is asked for."""
    names = [await upload(keeping, b"%d" % at) for at in range(5)]

    async def page(query: str) -> tuple[list[int], bool]:
        told = await (await keeping.call("GET", f"/v1/files?{query}")).json()
        assert told["object"] == "list"
        found = [names.index(each["id"]) for each in told["data"]]
        assert told["first_id"] == (names[found[0]] if found else None)
        assert told["last_id"] == (names[found[-1]] if found else None)
        return found, told["has_more"]

    assert await page("") == ([4, 3, 2, 1, 0], False)
    assert await page("limit=2") == ([4, 3], True)
    assert await page(f"limit=2&after={names[3]}") == ([2, 1], True)
    assert await page(f"limit=2&after={names[1]}") == ([0], False)
    assert await page(f"order=asc&limit=1&after={names[1]}") == ([2], True)
    assert await page("purpose=batch_output") == ([], False)
    for query in ("limit=0", "limit=x", "limit=10001", "order=up"):
        assert (await keeping.call("GET", f"/v1/files?{query}")).status == 400


async def test_deleting(keeping: Gateway, tmp_path: Path) -> None:
    """It is gone, and cannot be deleted twice; an id cannot lead out of the folder."""
    name = await upload(keeping, b"{}\n")
    deleted = await keeping.call("DELETE", f"/v1/files/{name}")
    assert await deleted.json() == {"id": name, "object": "file", "deleted": True}
    assert left(tmp_path / "kept") == []
    for method in ("GET", "DELETE"):
        for other in (name, "file-" + "0" * 32, "..%2F..", "keys", "file-../../x"):
            exchange = await keeping.call(method, f"/v1/files/{other}")
            assert exchange.status in {404, 405}
    error = (await (await keeping.call("GET", f"/v1/files/{name}/content")).json())["error"]
    assert (error["code"], error["param"]) == ("not_found", "file_id")


async def test_files_are_their_tenants(broker: MemoryBroker, tmp_path: Path) -> None:
    """Another's is told as one that never was, by each route."""
    keys = tmp_path / "keys.toml"
    keys.write_text(
        "".join(
            f'[[keys]]\nname = "{tenant}"\ntenant = "{tenant}"\nsha256 = "{hash_of(tenant)}"\n'
            for tenant in ("acme", "zeta")
        )
    )
    settings: dict[str, Any] = {"gateway_keys": keys, "gateway_batches": tmp_path / "kept"}
    async with Gateway(broker, **settings).running() as gateway:
        acme, zeta = ({"authorization": f"Bearer {each}"} for each in ("acme", "zeta"))
        name = await upload(gateway, b"{}\n", headers=acme)
        nowhere = "file-" + "0" * 32
        for method, path in (("GET", ""), ("GET", "/content"), ("DELETE", "")):
            others = [
                await gateway.call(method, f"/v1/files/{each}{path}", **zeta)
                for each in (name, nowhere)
            ]
            assert [each.status for each in others] == [404, 404]
            assert await others[0].json() == await others[1].json()
        assert (await (await gateway.call("GET", "/v1/files", **zeta)).json())["data"] == []
        assert (await gateway.call("GET", f"/v1/files/{name}", **acme)).status == 200


async def test_a_tenant_has_only_so_many(broker: MemoryBroker, tmp_path: Path) -> None:
    """Files, and bytes in them; what is being uploaded counts."""
    for bound, told in (("gateway_files", 2), ("gateway_stored_bytes", 1_000)):
        settings: dict[str, Any] = {"gateway_batches": tmp_path / bound, bound: told}
        async with Gateway(broker, **settings).running() as gateway:
            for _ in range(2):
                await upload(gateway, b"x" * 500)
            refused = await post_form(gateway, form([PURPOSE, ("file", b"x", "in.jsonl")]))
            error = (await refused.json())["error"]
            assert (refused.status, error["code"]) == (400, "limit_exceeded")
            assert (error["limit"], error["given"]) == (told, told)


@pytest.mark.parametrize(("bound", "most"), [("gateway_files", 2), ("gateway_stored_bytes", 1_000)])
async def test_uploads_side_by_side_keep_to_the_bound(
    broker: MemoryBroker, tmp_path: Path, bound: str, most: int
) -> None:
    """However many are begun while there is room: what is kept fits, and one alone is."""
    settings: dict[str, Any] = {"gateway_batches": tmp_path / "kept", bound: most}
    async with Gateway(broker, **settings).running() as gateway:
        body = form([PURPOSE, ("file", b"x" * 500, "in.jsonl")])
        told = await asyncio.gather(*(post_form(gateway, body) for _ in range(4)))
        assert {each.status for each in told} <= {200, 400}
        for each in told:
            if each.status == 400:
                error = (await each.json())["error"]
                assert (error["code"], error["limit"]) == ("limit_exceeded", most)
                assert error["given"] > most
        kept = [path for path in left(tmp_path / "kept") if path.endswith(".jsonl")]
        assert len(kept) == sum(each.status == 200 for each in told) <= 2
        if not kept:
            await upload(gateway, b"x" * 500)


async def test_an_upload_that_cannot_fit_ends_midway(
    broker: MemoryBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes no more of the disk than shows that."""
    monkeypatch.setattr("aril.gateway.upload.PIECE_BYTES", 500)
    monkeypatch.setattr("aril.gateway.files.CHECK_BYTES", 500)
    settings: dict[str, Any] = {"gateway_batches": tmp_path / "b", "gateway_stored_bytes": 1_000}
    async with Gateway(broker, **settings).running() as gateway:
        body = form([PURPOSE, ("file", b"x" * 100_000, "in.jsonl")])
        refused = await post_form(gateway, body, chunk=500)
        error = (await refused.json())["error"]
        assert (refused.status, error["code"]) == (400, "limit_exceeded")
        assert 1_000 < error["given"] <= refused.received < 3_000
        assert left(tmp_path / "b") == []


async def test_a_gateway_without_a_folder_says_so(gateway: Gateway) -> None:
    """By a code of its own, on every route."""
    for method, path in (
        ("POST", "/v1/files"),
        ("GET", "/v1/files"),
        ("GET", "/v1/files/x"),
        ("GET", "/v1/files/x/content"),
        ("DELETE", "/v1/files/x"),
        ("POST", "/v1/batches"),
        ("GET", "/v1/batches"),
        ("GET", "/v1/batches/x"),
        ("POST", "/v1/batches/x/cancel"),
    ):
        exchange = await gateway.call(method, path, {} if method == "POST" else None)
        error = (await exchange.json())["error"]
        assert (exchange.status, error["code"], error["retryable"]) == (404, "not_served", False)


def test_what_has_expired_is_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what a process that was killed has left, and nothing else."""
    files, now = Files(tmp_path / "files", days=2), 1_000_000.0
    monkeypatch.setattr("time.time", lambda: now)
    kept = {}
    for seconds in (3_600, None):
        name, part = files.begin()
        with part:
            part.write(b"x")
            kept[seconds] = files.keep(name, part, filename="f", purpose="batch", seconds=seconds)
    disk.new_part(files.content("file-" + "2" * 32)).write_bytes(b"its process died midway")
    lost = files.content("file-" + "1" * 32)
    lost.write_bytes(b"its process died before it told of it")
    for path in (tmp_path / "files").iterdir():
        os.utime(path, (now, now))
    for later, expected in ((0, 6), (3_601, 3), (86_401, 2), (2 * 86_400, 0)):
        now = 1_000_000.0 + later
        files.sweep()
        assert len([*(tmp_path / "files").iterdir()]) == expected, later
        assert (files.get(kept[3_600].id) is None) == (later >= 3_600)
    assert files.newest_first() == []


def test_locks_are_of_one_process_at_a_time(tmp_path: Path) -> None:
    """And free again once they are let go."""
    first = disk.Lock.take(tmp_path / "lock")
    assert first is not None
    assert disk.Lock.take(tmp_path / "lock") is None
    first.free()
    again = disk.Lock.take(tmp_path / "lock")
    assert again is not None
    again.free()


async def test_a_draining_gateway_takes_nothing_new(keeping: Gateway) -> None:
    """Another one does."""
    keeping.site.drain()
    exchange = await post_form(keeping, form([PURPOSE, ("file", b"x", "in.jsonl")]))
    assert (exchange.status, exchange.answer_headers["x-should-retry"]) == (503, "true")


async def test_a_page_from_elsewhere_cannot_upload(
    broker: MemoryBroker, keeping: Gateway, tmp_path: Path
) -> None:
    """A browser would let it send a form without asking; the gateway's own page may, and keys."""
    body = form([PURPOSE, ("file", b"x", "in.jsonl")])
    ours = {"origin": "http://localhost:8000", "host": "localhost:8000"}
    evil = {"origin": "https://evil.example", "host": "localhost:8000"}
    null = {"origin": "null", "host": "localhost:8000"}
    for headers, status in ((ours, 200), (evil, 403), (null, 403)):
        assert (await post_form(keeping, body, headers=headers)).status == status
    settings: dict[str, Any] = {"gateway_batches": tmp_path / "b", "gateway_cors": evil["origin"]}
    async with Gateway(broker, **settings).running() as known:
        assert (await post_form(known, body, headers=evil)).status == 200


async def test_a_disk_that_is_full(
    keeping: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told as what passes, by each route; nothing is left of what was begun."""
    name = await upload(keeping, b"{}")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(disk.Part, "write", full)
    monkeypatch.setattr(Files, "get", full)
    asked = [
        await post_form(keeping, form([PURPOSE, ("file", b"x" * 5_000, "in.jsonl")])),
        await keeping.call("GET", f"/v1/files/{name}"),
        await keeping.call("GET", "/v1/files"),
        await keeping.call("POST", "/v1/batches", wanted(name)),
    ]
    for exchange in asked:
        assert exchange.status == 503
        assert (await exchange.json())["error"]["code"] == "unavailable"
        assert exchange.answer_headers["x-should-retry"] == "true"
    assert left(tmp_path / "kept") == [f"{name}.json", f"{name}.jsonl"]


def test_a_file_system_that_cannot_do_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One without hard links or locks is told of at the start; the trial leaves nothing."""
    Store(tmp_path, days=1)
    for name in ("os.link", "fcntl.flock"):
        with monkeypatch.context() as patched:
            patched.setattr(name, unsupported)
            with pytest.raises(StoreError, match="not supported"):
                Store(tmp_path, days=1)
    monkeypatch.setattr("fcntl.flock", lambda *_: None)
    with pytest.raises(StoreError, match="locks do not hold"):
        Store(tmp_path, days=1)
    assert [*tmp_path.iterdir()] == []


def unsupported(*_: object) -> None:
    """Do what some file systems do."""
    raise OSError(errno.EOPNOTSUPP, "Operation not supported")
