"""Whenever a batch is killed: each line is answered once, and nothing is asked under two ids."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aril.schemas import ErrorCode
from tests.support.batch_site import BatchSite, chat_line
from tests.support.remembering_worker import RememberingWorker

if TYPE_CHECKING:
    from collections.abc import Sequence

LINES = 5


def write(site: BatchSite) -> None:
    """Ask for five answers: of both forms, one of them two in one line."""
    ours = ({"id": "own", "prompt": "p1"}, {"prompt": "p2", "sampling": {"max_tokens": 9}})
    site.write(
        chat_line("k0", "p0"), *ours, chat_line("k3", "p3", n=2, seed=1), chat_line("k4", "p4")
    )


def check(site: BatchSite, worker: RememberingWorker) -> None:
    """Compare what there is with what was asked."""
    records = site.records()
    texts = []
    for record in records:
        if "line" in record:
            texts.append((record["id"], record["text"]))
            continue
        assert record["error"] is None
        choices = record["response"]["body"]["choices"]
        assert len(choices) == (2 if record["custom_id"] == "k3" else 1)
        texts += [(record["custom_id"], choice["message"]["content"]) for choice in choices]
    keys = {"k0": 0, "own": 1, None: 2, "k3": 3, "k4": 4}
    whole = {key: "".join(f"p{at} {word};" for word in range(3)) for key, at in keys.items()}
    assert sorted(texts, key=str) == sorted([*whole.items(), ("k3", whole["k3"])], key=str)
    assert len(records) == LINES
    assert {prompt: len(set(ids)) for prompt, ids in worker.ids.items()} == {
        "p0": 1,
        "p1": 1,
        "p2": 1,
        "p3": 2,  # one for each answer
        "p4": 1,
    }
    assert worker.put_aside == []
    assert worker.cancels == []


async def killed_and_finished(kills: Sequence[tuple[int, bool, int]]) -> tuple[bool, int]:
    """Kill a batch so often, then let it finish; return whether the last one was in time."""
    in_time = False
    with tempfile.TemporaryDirectory() as folder:
        site = BatchSite(Path(folder))
        write(site)
        async with RememberingWorker(site.broker) as worker:
            for steps, politely, torn in kills:
                in_time = await site.killed(steps, politely=politely, torn=torn)
            await site.run()
            check(site, worker)
    return in_time, worker.sent_again


@pytest.mark.parametrize("politely", [True, False])
@pytest.mark.parametrize("torn", [0, 7])
async def test_killed_at_every_step(politely: bool, torn: int) -> None:
    """At each turn of the event loop, with and without a chance to clean up, and a torn line."""
    steps, sent_again = 0, 0
    while True:
        in_time, repeats = await killed_and_finished([(steps, politely, torn)])
        sent_again += repeats
        if not in_time:
            break
        steps += 1
    assert steps > 20
    assert sent_again > 10  # else nothing was ever found again


@given(
    st.lists(st.tuples(st.integers(0, 60), st.booleans(), st.integers(0, 300)), max_size=6),
)
@settings(max_examples=60)
async def test_killed_again_and_again(kills: list[tuple[int, bool, int]]) -> None:
    """In any order of kinds and moments."""
    await killed_and_finished(kills)


@pytest.mark.parametrize("politely", [True, False])
async def test_killed_at_every_step_between_retries(tmp_path: Path, politely: bool) -> None:
    """Attempts are walked along again: each id is asked once, in order, whoever walks."""
    for steps in range(0, 60, 2):
        site = BatchSite(tmp_path / str(steps))
        site.folder.mkdir()
        site.write(chat_line("k", "p"))
        async with RememberingWorker(site.broker) as worker:
            worker.fails["p"] = [
                worker.error("", ErrorCode.OVERLOADED, retry_after_ms=0) for _ in range(3)
            ]
            await site.killed(steps, politely=politely)
            await site.run()
            (record,) = site.records()
            assert record["error"] is None
            first, *others = worker.ids["p"]
            assert others == [f"{first}.r{attempt}" for attempt in (1, 2, 3)]
            assert worker.put_aside == worker.cancels == []


async def test_killed_after_a_job_had_taken_too_long(tmp_path: Path) -> None:
    """The end of the attempt that was given up is walked past, too."""
    site = BatchSite(tmp_path)
    site.write(chat_line("k", "p"))
    async with RememberingWorker(site.broker) as worker:
        worker.gate.clear()
        task = asyncio.create_task(site.run(timeout=0.02))
        await worker.until(lambda: len(worker.ids["p"]) == 2)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        worker.gate.set()
        await site.run()
    (record,) = site.records()
    assert record["error"] is None
    assert record["response"]["request_id"] == worker.ids["p"][1]
    assert len(worker.ids["p"]) == 2
