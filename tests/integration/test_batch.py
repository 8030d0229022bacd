"""A batch and its worker, both killed with kill -9: each line is answered once, under one id."""

from __future__ import annotations

import asyncio
import json
import signal
from collections import Counter
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final

import pytest

from aril.schemas import DoneEvent, VisibleStream
from tests.support.batch_process import BatchProcess
from tests.support.batch_site import chat_line
from tests.support.group_protocols import by_either_protocol

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.conftest import Site

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(600)]

LINES: Final = 300
TOKENS: Final = 16
CONCURRENCY: Final = 24
KILLS: Final = (10, 60, 90, 150, 240)
"""Killed when so many lines are answered."""
WORKER_DIES: Final = 120


@by_either_protocol
async def test_batch_and_worker_are_killed(site: Site, tmp_path: Path) -> None:
    """Five kills of the batch and one of a worker over three hundred lines."""
    source = tmp_path / "in.jsonl"
    lines = (
        chat_line(
            f"k{at}", f"question {at}", model="terse", max_tokens=TOKENS, temperature=0,
            ignore_eos=True,
        )
        for at in range(LINES)
    )  # fmt: skip
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    output = tmp_path / "out.jsonl"
    batch = BatchProcess(site.kafka, site.contract, source, output, concurrency=CONCURRENCY)
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(site.worker("one"))
        for lines_there in (each for each in KILLS if each < WORKER_DIES):
            await batch.killed_at(lines_there)
        process = batch.start()
        try:
            await batch.until(process, WORKER_DIES)
            one.signal(signal.SIGKILL)
            await stack.enter_async_context(site.worker("two"))
            await batch.until(process, KILLS[3])
        finally:
            process.kill()
            await asyncio.to_thread(process.communicate)
        await batch.killed_at(KILLS[4])
        code, said = await batch.finished()
        logs = await site.logs("acme")
    print(said, f"{len(logs)} jobs, {sum(map(len, logs.values()))} records")
    assert code == 0, said
    records = [json.loads(line) for line in batch.output.read_text().splitlines()]
    assert Counter(each["custom_id"] for each in records) == {f"k{at}": 1 for at in range(LINES)}
    for record in records:
        assert record["response"]["body"]["usage"]["completion_tokens"] == TOKENS
    # One id for each line, each with one visible end, which is what the output names.
    assert set(logs) == {record["response"]["request_id"] for record in records}
    for job, log in logs.items():
        reader = VisibleStream()
        events = [event for record in log for event in reader.feed(record)]
        assert sum(isinstance(event, DoneEvent) for event in events) == 1, job
