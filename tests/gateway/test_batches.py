"""`/v1/batches`: from a file to its results, what it refuses, and whose it is."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest

from aril.job_lines import BATCH_PRIORITY
from aril.schemas import ErrorCode
from tests.support.batch_site import chat_line
from tests.support.gateway_files import (
    batch_of,
    jsonl,
    over,
    records,
    start,
    upload,
    wanted,
)

if TYPE_CHECKING:
    from pathlib import Path

    from aril.memory import MemoryBroker
    from tests.support.gateway_site import Gateway
    from tests.support.remembering_worker import RememberingWorker


async def test_a_batch_is_answered(working: Gateway, answering: RememberingWorker) -> None:
    """Each line once: answers in one file, errors in the other, counts and usage beside them."""
    answering.fails["p2"] = [ErrorCode.PROMPT_TOO_LONG]
    lines = [
        chat_line("k0", "p0"),
        chat_line("k1", "p1", model="tiny", n=2),
        chat_line("k2", "p2"),
        chat_line("k3", "p3", top_p=2),
    ]
    made = await start(working, *lines, metadata={"of": "a test"})
    told = await over(working, made["id"])
    assert told["status"] == "completed"
    assert told["request_counts"] == {"total": 4, "completed": 2, "failed": 2}
    assert told["usage"]["output_tokens"] == 9
    assert told["metadata"] == {"of": "a test"}
    assert told["created_at"] <= told["in_progress_at"] <= told["completed_at"]
    good, bad = [
        {each["custom_id"]: each for each in await records(working, told[f"{what}_file_id"])}
        for what in ("output", "error")
    ]
    assert (set(good), set(bad)) == ({"k0", "k1"}, {"k2", "k3"})
    body = good["k0"]["response"]["body"]
    assert body["choices"][0]["message"]["content"] == "p0 0;p0 1;p0 2;"
    assert good["k0"]["response"]["request_id"] == answering.ids["p0"][0]
    assert len(good["k1"]["response"]["body"]["choices"]) == 2
    assert bad["k2"]["response"]["status_code"] == 400
    assert bad["k2"]["error"]["code"] == "prompt_too_long"
    assert bad["k3"]["error"]["param"] == "top_p"
    assert {job.priority for job in answering.first.values()} == {BATCH_PRIORITY}
    about = await (await working.call("GET", f"/v1/files/{told['output_file_id']}")).json()
    assert about["purpose"] == "batch_output"
    keeping = working.site.keeper
    assert keeping is not None
    keeping.stop()
    await keeping.run()  # until what it had begun is counted
    page = working.site.metrics.page("")[0].decode()
    for series in ('batches_total{ended="completed"} 1.0', 'batch_lines_total{ended="failed"} 2.0'):
        assert f"aril_gateway_{series}" in page


async def test_prompts_do_not_stay_where_they_are_not_needed(
    working: Gateway, answering: RememberingWorker, tmp_path: Path
) -> None:
    """What was deleted is gone with the batch that worked on it."""
    answering.gate.clear()
    made = await start(working, chat_line("k", "a secret"))
    await answering.until(lambda: bool(answering.first))
    await working.call("DELETE", f"/v1/files/{made['input_file_id']}")
    answering.gate.set()
    told = await over(working, made["id"])
    assert told["request_counts"]["completed"] == 1
    await working.call("DELETE", f"/v1/files/{told['output_file_id']}")
    for path in (tmp_path / "kept").rglob("*"):
        assert path.is_dir() or b"secret" not in path.read_bytes(), path


@pytest.mark.parametrize(
    ("content", "code", "line", "param"),
    [
        (b"\n", "empty_batch", None, None),
        (jsonl(chat_line("k", "p")) + b"{\n", "invalid_json_line", 2, None),
        (jsonl(*(chat_line("k", "p") for _ in range(2))), "duplicate_custom_id", 2, "custom_id"),
        (jsonl({"prompt": "ours"}), "invalid_request", 1, "custom_id"),
        (jsonl(chat_line("k", "p") | {"method": "GET"}), "invalid_request", 1, "method"),
        (jsonl(chat_line("k", "p") | {"url": "/v1/completions"}), "url_mismatch", 1, "url"),
    ],
)
async def test_a_file_that_is_unfit(
    working: Gateway,
    broker: MemoryBroker,
    content: bytes,
    code: str,
    line: int | None,
    param: str | None,
) -> None:
    """Nothing is asked; which line it is stands in the batch."""
    body = wanted(await upload(working, content))
    made = await (await working.call("POST", "/v1/batches", body)).json()
    told = await over(working, made["id"])
    assert told["status"] == "failed"
    (error,) = told["errors"]["data"]
    assert (error["code"], error["line"], error["param"]) == (code, line, param)
    assert told["failed_at"]
    assert told["output_file_id"] is told["error_file_id"] is None
    assert broker.jobs.empty()


async def test_bodies_that_are_refused(working: Gateway, answering: RememberingWorker) -> None:
    """By the field that is wrong."""
    name = await upload(working, jsonl(chat_line("k", "p")))
    made = await start(working, chat_line("k", "p"))
    told = await over(working, made["id"])
    good: dict[str, Any] = wanted(name)
    for changes, status, param in (
        ({"input_file_id": "file-" + "0" * 32}, 404, "input_file_id"),
        ({"input_file_id": "../../etc/passwd"}, 404, "input_file_id"),
        ({"input_file_id": told["output_file_id"]}, 400, "input_file_id"),
        ({"endpoint": "/v1/embeddings"}, 400, "endpoint"),
        ({"completion_window": "soon"}, 400, "completion_window"),
        ({"completion_window": "31d"}, 400, "completion_window"),
        ({"metadata": {"k": 1}}, 400, "metadata.k"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 1}}, 400,
         "output_expires_after.seconds"),
        ({"colour": "red"}, 400, "colour"),
    ):  # fmt: skip
        exchange = await working.call("POST", "/v1/batches", good | changes)
        error = (await exchange.json())["error"]
        assert (exchange.status, error["param"]) == (status, param), error
    assert len(answering.first) == 1


async def test_cancelled(working: Gateway, answering: RememberingWorker) -> None:
    """What runs is ended, what is there is kept, and each other line is told of as an error."""
    answering.gate.clear()
    made = await start(working, *(chat_line(f"k{at}", f"p{at}") for at in range(3)))
    await answering.until(lambda: len(answering.first) == 3)
    exchange = await working.call("POST", f"/v1/batches/{made['id']}/cancel")
    told = await exchange.json()
    assert (exchange.status, told["status"]) == (200, "cancelling")
    assert told["cancelling_at"]
    told = await over(working, made["id"])
    assert told["status"] == "cancelled"
    assert told["cancelled_at"] >= told["cancelling_at"]
    assert told["request_counts"] == {"total": 3, "completed": 0, "failed": 3}
    found = await records(working, told["error_file_id"])
    assert sorted(each["custom_id"] for each in found) == ["k0", "k1", "k2"]
    assert {each["error"]["code"] for each in found} == {"batch_cancelled"}
    assert len(answering.cancels) == 3
    again = await working.call("POST", f"/v1/batches/{made['id']}/cancel")
    assert (await again.json())["status"] == "cancelled"


async def test_what_is_over_cannot_be_cancelled(
    working: Gateway, answering: RememberingWorker
) -> None:
    """Its results stand."""
    made = await start(working, chat_line("k", "p"))
    told = await over(working, made["id"])
    exchange = await working.call("POST", f"/v1/batches/{made['id']}/cancel")
    assert (exchange.status, (await exchange.json())["error"]["code"]) == (409, "not_open")
    assert await batch_of(working, made["id"]) == told
    assert answering.cancels == []


async def test_expired(
    working: Gateway, answering: RememberingWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is answered by then is kept, the others are told of."""
    long = answering.error("", ErrorCode.OVERLOADED, retry_after_ms=3_600_000)
    answering.fails["p1"] = [long]
    made = await start(working, chat_line("k0", "p0"), chat_line("k1", "p1"))
    async with asyncio.timeout(30):
        while (await batch_of(working, made["id"]))["request_counts"]["completed"] != 1:  # noqa: ASYNC110 - as a client does
            await asyncio.sleep(0.02)
    later = time.time() + 86_500
    monkeypatch.setattr("time.time", lambda: later)
    told = await over(working, made["id"])
    assert (told["status"], told["expired_at"]) == ("expired", int(later))
    assert told["request_counts"] == {"total": 2, "completed": 1, "failed": 1}
    (good,) = await records(working, told["output_file_id"])
    (bad,) = await records(working, told["error_file_id"])
    assert (good["custom_id"], bad["custom_id"]) == ("k0", "k1")
    assert (bad["response"], bad["error"]["code"]) == (None, "batch_expired")
