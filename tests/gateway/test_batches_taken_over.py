"""A gateway dies, or is stopped, at any moment: another goes on, each line is answered once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from aril.batches.output import Output
from aril.gateway.stored import keeper, runner
from aril.gateway.stored.batches import ANSWERS
from tests.support.batch_site import chat_line
from tests.support.crash_points import CrashPoints
from tests.support.gateway_files import batch_of, over, records, start
from tests.support.gateway_site import Gateway
from tests.support.remembering_worker import RememberingWorker

if TYPE_CHECKING:
    from pathlib import Path

    from aril.memory import MemoryBroker

LINES = [chat_line("k0", "p0"), chat_line("k1", "p1", n=2, seed=1), chat_line("k2", "p2", top_p=2)]
KEYS = ["k0", "k1", "k2"]


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(keeper, "LOOK_SECONDS", 0.1)


async def keys_of(gateway: Gateway, told: dict[str, Any]) -> list[str]:
    """Return the ids of all lines that a batch has brought, those of errors included."""
    files = [told["output_file_id"], told["error_file_id"]]
    return sorted([each["custom_id"] for file in files for each in await records(gateway, file)])


async def batches_in(gateway: Gateway) -> list[dict[str, Any]]:
    """Return those that were made before the kill."""
    found: list[dict[str, Any]] = (await (await gateway.call("GET", "/v1/batches")).json())["data"]
    return found


async def test_killed_before_each_write(
    broker: MemoryBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the folder holds then, each line is answered once and asked under one id."""
    points = CrashPoints(tmp_path / "kept", tmp_path / "copies")
    async with RememberingWorker(broker) as worker:
        with monkeypatch.context() as patched:
            async with Gateway(broker, gateway_batches=tmp_path / "kept").running() as gateway:
                points.watch(patched)
                await over(gateway, (await start(gateway, *LINES))["id"])
        seen = set()
        for copy in points.found:
            async with Gateway(broker, gateway_batches=copy).running() as gateway:
                for made in await batches_in(gateway):
                    seen.add(made["status"])
                    told = await over(gateway, made["id"])
                    assert told["status"] == "completed"
                    assert told["request_counts"] == {"total": 3, "completed": 2, "failed": 1}
                    assert await keys_of(gateway, told) == KEYS
        assert {prompt: len(ids) for prompt, ids in worker.ids.items()} == {"p0": 1, "p1": 2}
        assert worker.put_aside == worker.cancels == []
        assert worker.sent_again > 10
    assert len(points.found) > 15
    assert seen == {"validating", "in_progress", "finalizing", "completed"}


async def test_killed_while_it_is_cancelled(
    broker: MemoryBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once the wish is written it is held to, and each line is told of."""
    points = CrashPoints(tmp_path / "kept", tmp_path / "copies")
    ended = []
    async with RememberingWorker(broker) as worker:
        worker.gate.clear()
        with monkeypatch.context() as patched:
            async with Gateway(broker, gateway_batches=tmp_path / "kept").running() as gateway:
                made = await start(gateway, *LINES)
                await worker.until(lambda: len(worker.first) == 3)
                points.watch(patched)
                await gateway.call("POST", f"/v1/batches/{made['id']}/cancel")
                await over(gateway, made["id"])
        worker.gate.set()
        for copy in points.found:
            async with Gateway(broker, gateway_batches=copy).running() as gateway:
                before = await batch_of(gateway, made["id"])
                told = await over(gateway, made["id"])
                ended.append((before["status"], told["status"]))
                assert await keys_of(gateway, told) == KEYS
    assert set(ended) == {
        ("in_progress", "completed"),  # the wish was not written yet
        ("cancelling", "cancelled"),
        ("cancelled", "cancelled"),
    }


async def test_a_gateway_that_is_stopped_leaves_its_batches_to_another(
    broker: MemoryBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have the folder; the other waits for the lock, and finds what runs under its ids."""
    monkeypatch.setattr("aril.batches.run.LEAVE_SECONDS", 0.1)
    monkeypatch.setattr("aril.gateway.stored.keeper.LOOK_SECONDS", 3_600.0)  # when it is told to
    settings: dict[str, Any] = {"gateway_batches": tmp_path / "kept"}
    async with RememberingWorker(broker) as worker:
        worker.gate.clear()
        renamed = settings | {"gateway_model": "renamed"}  # what it is called now changes no id
        async with Gateway(broker, **renamed).running() as other:
            async with Gateway(broker, **settings).running() as one:
                made = await start(one, *LINES)
                await worker.until(lambda: len(worker.first) == 3)
                keeping = other.site.keeper
                assert keeping is not None
                await keeping._look()
                assert not keeping._running  # the lock is held
            assert worker.cancels == []
            keeping.look()
            await worker.until(lambda: worker.sent_again == 3)
            worker.gate.set()
            told = await over(other, made["id"])
            assert told["request_counts"] == {"total": 3, "completed": 2, "failed": 1}
            assert await keys_of(other, told) == KEYS
        assert worker.put_aside == worker.cancels == []
        assert len(worker.first) == 3


async def test_answers_that_cannot_be_read_end_a_batch(
    broker: MemoryBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It fails, and says so, rather than to be tried for ever."""
    monkeypatch.setattr("aril.batches.run.LEAVE_SECONDS", 0.1)
    settings: dict[str, Any] = {"gateway_batches": tmp_path / "kept"}
    async with RememberingWorker(broker) as worker:
        worker.gate.clear()
        async with Gateway(broker, **settings).running() as gateway:
            made = await start(gateway, *LINES)
            await worker.until(lambda: len(worker.first) == 3)
        batch = tmp_path / "kept" / "acme" / "batches" / made["id"]
        (batch / ANSWERS).write_bytes(b"something else\n")
        async with Gateway(broker, **settings).running() as gateway:
            told = await over(gateway, made["id"])
        assert told["status"] == "failed"
        assert told["errors"]["data"][0]["code"] == "internal"


async def test_an_output_that_is_still_held_ends_no_batch(
    broker: MemoryBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The locks of a process that is killed are not all free at once: it is tried again."""
    monkeypatch.setattr(keeper, "REST_SECONDS", 0.2)
    monkeypatch.setattr("aril.batches.run.LEAVE_SECONDS", 0.1)
    settings: dict[str, Any] = {"gateway_batches": tmp_path / "kept"}
    async with RememberingWorker(broker) as worker:
        worker.gate.clear()
        async with Gateway(broker, **settings).running() as gateway:
            made = await start(gateway, *LINES)
            await worker.until(lambda: len(worker.first) == 3)
        worker.gate.set()
        with Output(tmp_path / "kept" / "acme" / "batches" / made["id"] / ANSWERS):
            async with Gateway(broker, **settings).running() as gateway:
                keeping = gateway.site.keeper
                assert keeping is not None
                async with asyncio.timeout(30):
                    while not keeping._resting:  # noqa: ASYNC110 - it is told by nothing else
                        await asyncio.sleep(0.02)
                assert (await batch_of(gateway, made["id"]))["status"] == "in_progress"
        async with Gateway(broker, **settings).running() as gateway:
            told = await over(gateway, made["id"])
            assert told["request_counts"] == {"total": 3, "completed": 2, "failed": 1}
        assert len(worker.first) == 3


async def test_a_batch_outlives_a_folder_that_cannot_be_written(
    broker: MemoryBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk ends no batch: it is tried again, and what was answered is found."""
    monkeypatch.setattr(keeper, "REST_SECONDS", 0.2)
    full, whole = 3, Output.append

    def append(self: Output, record: bytes) -> None:
        nonlocal full
        if full:
            full -= 1
            raise OSError(28, "No space left on device")
        whole(self, record)

    monkeypatch.setattr(Output, "append", append)
    async with RememberingWorker(broker) as worker:
        async with Gateway(broker, gateway_batches=tmp_path / "kept").running() as gateway:
            made = await start(gateway, *LINES)
            told = await over(gateway, made["id"])
            assert told["request_counts"] == {"total": 3, "completed": 2, "failed": 1}
            assert await keys_of(gateway, told) == KEYS
        assert full == 0
        assert len(worker.first) == 3
        assert worker.cancels == []
