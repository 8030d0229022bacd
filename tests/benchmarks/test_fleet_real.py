"""The fleet's load, its checks of answers, and what is read of logs, metrics and the broker."""

from __future__ import annotations

import asyncio
import csv
import subprocess
import sys
from collections import Counter
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from aril.schemas import (
    ClaimRecord,
    DoneRecord,
    Epoch,
    ErrorCode,
    ErrorRecord,
    Sampling,
    Timings,
    TokensRecord,
    Usage,
)
from aril.worker.engine.request import GenerationRequest
from benchmarks.fleet_real import loop_time
from benchmarks.fleet_real.broker import counted_in
from benchmarks.fleet_real.engine import TellingEngine
from benchmarks.fleet_real.fleet import Assigned, assignments, sums_of
from benchmarks.fleet_real.loop_time import LoopTime
from benchmarks.fleet_real.plan import turns_of
from benchmarks.fleet_real.streams import Stream, Streams, share
from tests.support.brokers import choice
from tests.support.fault_content import prompt_of, text_of, tokens_of

if TYPE_CHECKING:
    from pathlib import Path

    from aril.schemas import ReplyRecord

FIRST, SECOND = Epoch(1, 1), Epoch(2, 1)
JOB = "j1"


def tokens(start: int, stop: int, job: str = JOB, epoch: Epoch = FIRST) -> TokensRecord:
    """Return a record of the answer of acme's job."""
    ids, text = tokens_of("acme", job, start, stop), text_of("acme", job, start, stop)
    return TokensRecord(job=JOB, epoch=epoch, worker="a", index=start, ids=ids, text=text)


def done(index: int) -> DoneRecord:
    """Return an answer's end."""
    return DoneRecord(
        job=JOB,
        epoch=FIRST,
        worker="a",
        index=index,
        text="",
        finish_reason="length",
        usage=Usage(prompt_tokens=1, completion_tokens=index),
        adapter=None,
        digest=None,
        base="telling",
        seed=1,
        timings=Timings(queue_ms=0, ttft_ms=0, total_ms=0),
    )


def stream_of(*records: ReplyRecord, asked: int = 3) -> Stream:
    """Return a stream that these were read of, one a second."""
    stream = Stream("acme", JOB, asked, sent=0.0)
    for second, record in enumerate(records, start=1):
        stream.take(record, float(second))
    return stream


def test_every_tenant_has_a_turn_and_a_few_have_many() -> None:
    """In two rounds each of them comes; the first has a fifth of the other half, by Zipf's law."""
    turns = turns_of(50)
    drawn = Counter(next(turns) for _ in range(1_000))
    assert set(drawn) == set(range(50))
    assert 85 < drawn[0] < 145  # 10 of the rounds, and 1 / H(50) = 0.22 of 500
    again = turns_of(50)
    assert Counter(next(again) for _ in range(1_000)) == drawn


@pytest.mark.parametrize(
    ("records", "verdict"),
    [
        ([tokens(0, 2), tokens(2, 3), done(3)], "right"),
        ([tokens(0, 2), tokens(0, 2), tokens(2, 3), done(3)], "right"),  # landed twice
        ([tokens(0, 2), tokens(2, 3)], "lost"),
        ([tokens(0, 2), done(2)], "lost"),
        ([tokens(0, 3), tokens(3, 4), done(4)], "doubled"),
        ([tokens(0, 2), tokens(2, 3, job="j2"), done(3)], "altered"),
        (
            [
                ErrorRecord(
                    job=JOB,
                    epoch=FIRST,
                    worker="a",
                    index=0,
                    code=ErrorCode.INTERNAL,
                    message="",
                    retryable=True,
                )
            ],
            "failed",
        ),
    ],
)
def test_an_answer_is_judged_by_what_was_asked(records: list[ReplyRecord], verdict: str) -> None:
    """Lost, doubled and altered are told apart; what the reader rule passes over is no harm."""
    assert stream_of(*records).verdict() == verdict


def test_delays_are_those_of_tokens() -> None:
    """The first token's by when the job was sent, and silences between records that count."""
    streams = Streams()
    stream = Stream("acme", JOB, 3, sent=10.0)
    streams.expect(stream)
    for record, at in ((tokens(0, 1), 11.0), (tokens(0, 1), 12.0), (tokens(1, 3), 14.0)):
        streams.take(record, at)
    assert streams.first_tokens(10.0, 11.0) == [1.0]
    assert streams.first_tokens(11.0, 12.0) == []
    assert [gap.seconds for gap in streams.gaps(0.0, 20.0)] == [3.0]
    assert stream.running
    assert [streams.take(done(3), at) for at in (15.0, 16.0)] == [True, False]
    assert (stream.running, streams.open) == (False, 0)
    assert streams.verdicts() == Counter(right=1)


def test_claims_of_jobs_that_nobody_had_begun_are_told_apart() -> None:
    """A claim behind tokens is of a job that was begun; one behind a claim alone is not."""
    streams = Streams()
    streams.expect(Stream("acme", JOB, 3, sent=0.0))
    claims = [ClaimRecord(job=JOB, epoch=Epoch(number, 1), worker="b") for number in (2, 3, 5)]
    records: list[ReplyRecord] = [*claims[:2], tokens(0, 1, epoch=Epoch(4, 1)), claims[2]]
    for record in records:
        streams.take(record, 1.0)
    assert (streams.claims, streams.claims_unbegun) == (3, 2)
    streams.take(ClaimRecord(job="j9", epoch=SECOND, worker="b"), 1.0)
    assert (streams.claims, streams.strange) == (3, 1)


def test_the_engine_goes_on_behind_what_is_visible() -> None:
    """Its tokens are the job's own, one a step for as many rows as it has."""
    engine = TellingEngine(1, pace=0.0)
    for key, job in enumerate((JOB, "j2")):
        engine.submit(
            GenerationRequest(
                key=key,
                prompt_ids=prompt_of("acme", job),
                sampling=Sampling(max_tokens=2),
                seed=1,
                adapter=None,
                resume_ids=tokens_of("acme", job, 0, 1 - key),
            )
        )
    steps = []
    while engine.has_work:
        steps += engine.step()
    assert [(each.key, each.ids, each.finish) for each in steps] == [
        (0, tokens_of("acme", JOB, 1, 2), "length"),
        (1, tokens_of("acme", "j2", 0, 1), None),
        (1, tokens_of("acme", "j2", 1, 2), "length"),
    ]


async def test_the_loops_time_is_that_of_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is waited for does not count, what is called within counts once, errors pass through."""
    now = 0.0
    monkeypatch.setattr(loop_time, "time", SimpleNamespace(thread_time=lambda: now))
    others = asyncio.Event()

    class Client:
        async def outer(self) -> str:
            nonlocal now
            now += 1
            told = await self.inner()
            now += 2
            return told

        async def inner(self) -> str:
            nonlocal now
            now += 4
            await others.wait()
            now += 8
            return "told"

        async def failing(self) -> None:
            nonlocal now
            now += 16
            await asyncio.Event().wait()

    spent = LoopTime()
    for name in ("outer", "inner", "failing"):
        spent.around(Client, name)
    asking = asyncio.create_task(Client().outer())
    await asyncio.sleep(0)
    now += 100
    others.set()
    assert await asking == "told"
    assert spent.seconds == 15
    failing = asyncio.create_task(Client().failing())
    await asyncio.sleep(0)
    failing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await failing
    assert spent.seconds == 31


def test_what_a_worker_tells_is_read() -> None:
    """Assignments from its log, a line that is not whole left out; sums from its metrics."""
    line = '{"event": "partitions_assigned", "generation": 7, "partitions": 50,'
    line += ' "timestamp": "1970-01-01T00:01:00Z"}'
    log = f'{line}\n{{"event": "ready"}}\nTraceback\n{line[:-5]}'
    assert [*assignments(log)] == [Assigned(60.0, 7, 50)]
    page = '# HELP a words\na_total{end="x y"} 2.0\na_total{end="z"} 3.0\nb 1e-3\n'
    assert sums_of(page) == {"a_total": 5.0, "b": 0.001}


def test_requests_are_counted_over_all_versions() -> None:
    """As the broker's tool prints them."""
    told = (
        "k:type=RequestMetrics,name=RequestsPerSec,request=Metadata,version=2:Count=3\n"
        "k:type=RequestMetrics,name=RequestsPerSec,request=Metadata,version=5:Count=4\n"
        "k:type=RequestMetrics,name=RequestsPerSec,request=Fetch,version=4:Count=9\n"
    )
    assert counted_in(told) == {"Metadata": 7, "Fetch": 9}


def test_a_share_is_a_value_that_was_seen() -> None:
    """The worst for all of them."""
    assert share([3.0, 1.0, 2.0], 0.5) == 2.0
    assert share(range(1_001), 0.99) == 990
    assert share([3.0, 1.0], 1.0) == 3.0


@pytest.mark.slow
@pytest.mark.kafka
def test_a_small_fleet_answers_everything(tmp_path: Path) -> None:
    """Two workers, twenty tenants, eight partitions, through every phase."""
    if choice().kind != "apache":
        pytest.skip("it needs an Apache Kafka of its own")
    sizes = "--workers 2 --tenants 20 --partitions 8 --rows 2 --pace 0.05 --warm-seconds 1"
    load = "--steady-seconds 2 --steady-jobs 4 --queued-jobs 60 --restarts 1 --restart-jobs 1"
    ends = "--killed-alone 1 --killed 0 --killed-tokens 200"
    out = tmp_path / "fleet.csv"
    command = [sys.executable, "-m", "benchmarks.fleet_real", *f"{sizes} {load} {ends}".split()]
    subprocess.run([*command, "--out", str(out)], check=True)
    with out.open(newline="") as file:
        found = {
            (row["provider"], row["metric"]): float(row["p50"]) for row in csv.DictReader(file)
        }
    answers = {metric: value for (phase, metric), value in found.items() if phase == "all answers"}
    assert answers["tenants with a job"] == 20
    assert answers["right"] == answers["jobs"]
    assert found["kill -9 of one", "of these, streams that went on"] >= 1
