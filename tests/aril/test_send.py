"""`aril send` as a process against a broker and a worker that answers with its prompt."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.aril.conftest import Cluster, RunAril
    from tests.support.fake_worker import FakeWorker

pytestmark = pytest.mark.kafka


@pytest.fixture
async def worker(cluster: Cluster) -> AsyncIterator[FakeWorker]:
    """Run a worker that answers every job with its own words."""
    async with cluster.worker() as worker:
        yield worker


@pytest.mark.usefixtures("worker")
async def test_one_prompt(cluster: Cluster, aril: RunAril) -> None:
    """One prompt prints its answer and nothing else."""
    done = await aril("send", "-t", "acme", "hello there", env=cluster.env)
    assert (done.out, done.err, done.code) == ("hello there\n", "", 0)


@pytest.mark.usefixtures("worker")
async def test_prompt_from_stdin(cluster: Cluster, aril: RunAril) -> None:
    """Without arguments all of standard input is one prompt."""
    env = cluster.env | {"ARIL_TENANT": "acme"}
    done = await aril("send", "--raw", stdin="two lines\nof it", env=env)
    assert (done.out, done.code) == ("two lines\nof it\n", 0)


@pytest.mark.usefixtures("worker")
async def test_several_prompts(cluster: Cluster, aril: RunAril) -> None:
    """Several prompts print whole lines marked by number, and what answered."""
    done = await aril("send", "-t", "acme", "-a", "terse", "first", "second", env=cluster.env)
    assert sorted(done.out.splitlines()) == [
        "1 │ first [1 tokens, terse@abababababab]",
        "2 │ second [1 tokens, terse@abababababab]",
    ]
    assert done.code == 0


@pytest.mark.usefixtures("worker")
async def test_failed_job(cluster: Cluster, aril: RunAril) -> None:
    """A failed job is told by its code and by exit code 1; its neighbour is answered."""
    done = await aril("send", "-t", "acme", "fail", "fine", env=cluster.env)
    assert "1 │ [overloaded: told to fail]" in done.out
    assert "2 │ fine" in done.out
    assert done.code == 1


@pytest.mark.usefixtures("worker")
async def test_jsonl_to_json(cluster: Cluster, aril: RunAril, tmp_path: Path) -> None:
    """A JSONL file in, events as JSON lines out: texts joined by job are the answers."""
    jobs = tmp_path / "jobs.jsonl"
    jobs.write_text(
        '{"id": "a-1", "prompt": "one two", "sampling": {"max_tokens": 1}}\n\n'
        '{"id": "a-2", "messages": [{"role": "user", "content": "three"}]}\n'
    )
    done = await aril("send", "-t", "acme", "--jsonl", str(jobs), "--json", env=cluster.env)
    events = [json.loads(line) for line in done.out.splitlines()]
    texts = {
        job: "".join(event["text"] for event in events if event["job"] == job)
        for job in ("a-1", "a-2")
    }
    assert texts == {"a-1": "one", "a-2": "three"}
    ended = next(event for event in events if event["event"] == "done")
    assert ended["usage"] == {"prompt_tokens": 1, "completion_tokens": 1}
    assert sorted(event["event"] for event in events) == ["done", "done", "tokens", "tokens"]
    assert done.code == 0


async def test_detach_and_resume(cluster: Cluster, aril: RunAril) -> None:
    """A detached job prints a token that another process reads the answer with."""
    sent = await aril("send", "-t", "acme", "--detach", "to be continued", env=cluster.env)
    async with cluster.worker():
        done = await aril("send", "-t", "acme", "--resume", sent.out.strip(), env=cluster.env)
    assert (done.out, done.code) == ("to be continued\n", 0)


async def test_timeout_cancels(cluster: Cluster, aril: RunAril) -> None:
    """A time-out ends the command with code 1 and cancels the job behind it."""
    done = await aril(
        "send", "-t", "acme", "--timeout", "0.2", "--json", "nobody is there", env=cluster.env
    )
    event = json.loads(done.out)
    assert (event["code"], done.code) == ("JobTimeout", 1)
    async with cluster.worker() as worker:
        while event["job"] not in worker.cancelled:  # noqa: ASYNC110 - the test's time-out ends it
            await asyncio.sleep(0.02)
