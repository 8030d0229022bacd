"""One worker's life: probes while it loads, draining, the second signal, bad settings."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from aril.schemas import DoneEvent, TokensEvent
from tests.support.group_protocols import by_either_protocol

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.conftest import Site

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]

LONG = {"max_tokens": 400, "ignore_eos": True}


def events(log: Path) -> list[str]:
    """Return the names of the events in a worker's log, all of which must be JSON."""
    return [json.loads(line)["event"] for line in log.read_text().splitlines()]


@by_either_protocol
async def test_probes_answer_while_the_model_loads(site: Site) -> None:
    """Alive and not ready from the start, ready in the end, one ready line."""
    worker = site.worker("one")
    async with worker.started():
        async with asyncio.timeout(60):
            while (seen := await worker.probe("/readyz"))[0] == 0:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.01)
        assert seen[0] == 503
        assert "not loaded yet" in seen[1]
        assert (await worker.probe("/livez"))[0] == 200
        assert "aril_jobs_total" in (await worker.probe("/metrics"))[1]
        await worker.ready()
        assert events(worker.log).count("ready") == 1
        page = (await worker.probe("/metrics"))[1]
        assert "\naril_ready 1.0\n" in page
        assigns = "sticky" if site.protocol == "classic" else "brokers"
        assert f'assignor="{assigns}"' in page
        assert "\naril_rebalances_total 0.0\n" not in page


@by_either_protocol
async def test_sigterm_lets_the_running_job_finish(site: Site) -> None:
    """The stream goes on to its end, readiness is gone at once, the exit code is 0."""
    async with site.worker("one", drain_seconds=60) as worker, site.client("visitor") as client:
        stream = client.stream("a long story", sampling=LONG, timeout=100)
        seen = []
        async for event in stream:
            seen.append(event)
            if len(seen) == 1:
                worker.signal(signal.SIGTERM)
                await asyncio.sleep(0.2)
                assert (await worker.probe("/readyz"))[0] in {503, 0}
        assert isinstance(seen[-1], DoneEvent)
        assert sum(len(each.ids) for each in seen if isinstance(each, TokensEvent)) == 400
        assert await worker.wait() == 0
        assert "drain_cut_short" not in events(worker.log)


@by_either_protocol
async def test_a_worker_that_drains_hands_its_queue_over_at_once(site: Site) -> None:
    """Its streams go on where they are; what comes meanwhile, and what waited, is answered."""
    one, two = site.worker("one", drain_seconds=600, max_rows=1), site.worker("two")
    one.module = two.module = ("tests.support.paced_worker", "0.05")
    async with one.started(), site.client("visitor") as client:
        story = client.stream("a long story", sampling={"max_tokens": 4_000}, timeout=150)
        waiting = client.stream("what waits", sampling={"max_tokens": 1}, timeout=100)
        tokens = aiter(story)
        await anext(tokens)
        await waiting.start()
        async with two.started():
            await two.ready()
            one.signal(signal.SIGTERM)
            late = client.stream("what comes then", sampling={"max_tokens": 1}, timeout=100)
            for stream in (waiting, late):
                assert len((await stream.result()).token_ids) == 1
            for _ in range(20):
                assert isinstance(await anext(tokens), TokensEvent)
            assert one.exit_code is None
            assert await two.metric("aril_jobs_total") == 2
        one.signal(signal.SIGTERM)  # and now at once


@by_either_protocol
async def test_what_does_not_fit_into_the_drain_is_the_next_workers(site: Site) -> None:
    """With no time to drain the worker leaves in mid-stream; the next one answers the job."""
    async with site.worker("one", drain_seconds=0) as one, site.client("visitor") as client:
        stream = client.stream("a long story", sampling=LONG, timeout=150)
        begun = asyncio.Event()

        async def read() -> None:
            async for _ in stream:
                begun.set()

        reading = asyncio.create_task(read())
        await begun.wait()
        assert await one.stop() == 0
        assert "drain_cut_short" in events(one.log)
        async with site.worker("two"):
            await reading
        answer = await stream.result()
        assert len(answer.token_ids) == 400
        assert answer.resets == 0


@by_either_protocol
async def test_a_second_signal_stops_at_once(site: Site) -> None:
    """Whatever runs: the second signal ends the process without waiting for it."""
    async with site.worker("one", drain_seconds=600) as worker, site.client("visitor") as client:
        stream = client.stream("a long story", sampling=LONG, timeout=100)
        await anext(aiter(stream))
        worker.signal(signal.SIGINT)
        async with asyncio.timeout(30):
            while "stopping" not in events(worker.log):  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.01)
        worker.signal(signal.SIGINT)
        assert await worker.wait() == 128 + signal.SIGINT


@pytest.mark.parametrize(
    ("environ", "line"),
    [
        ({"ARIL_WINDW_MS": "5"}, "ARIL_WINDW_MS: unknown setting, did you mean ARIL_WINDOW_MS?"),
        ({"ARIL_MAX_ROWS": "0"}, "ARIL_MAX_ROWS: input should be greater than or equal to 1"),
    ],
)
def test_bad_settings_exit_2_with_one_line(environ: dict[str, str], line: str) -> None:
    """Nothing is started, and the line names the setting."""
    done = subprocess.run(
        [sys.executable, "-m", "aril", "worker"],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert line in done.stderr
    assert len(done.stderr.splitlines()) == 1


async def test_a_model_that_is_none_ends_the_worker(site: Site, tmp_path: Path) -> None:
    """A folder without a model is no reason to wait: exit code 1 and one line that says so."""
    worker = site.worker("one", model=tmp_path)
    async with worker.started():
        assert await worker.wait() == 1
    assert "is no model folder" in worker.log.read_text()
