"""Jobs whose writers crash: who is suspected, who runs alone, who is convicted."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aril.schemas import (
    ClaimRecord,
    Epoch,
    ErrorCode,
    ErrorEvent,
    ReleaseRecord,
)
from aril.worker.engine.request import Output
from aril.worker.replies.producer import TooLargeError
from aril.worker.takeover.rule import History
from tests.support.older_jobs import OLD, before, claim, job, kinds, tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pytest

    from tests.support.harness import Harness


async def test_two_crashes_without_a_token_and_a_job_runs_alone(harness: Harness) -> None:
    """It is put back with a release until the engine is empty, then it has it to itself."""
    harness.send(job("other"))
    await harness.settle()
    before(harness, claim((1, 1), "w-a"), claim((2, 1), "w-b"))
    harness.send(job())
    await harness.settle()
    assert kinds(harness) == ["claim", "claim", "claim", "release"]
    harness.send(job("third"))
    await harness.settle()
    assert {each.prompt_ids for each in harness.engine.requests.values()} == {
        tuple(b"prompt of other")
    }
    harness.step(Output(harness.key_of("prompt of other"), (1,), "a", finish="stop"))
    await harness.settle()
    last = harness.replies("acme", "j1")[-1]
    assert isinstance(last, ClaimRecord)
    assert (last.alone, last.epoch) == (True, (3, 2))
    assert harness.running == ["prompt of j1"]
    harness.step(Output(harness.key_of("prompt of j1"), (1,), "a", finish="stop"))
    await harness.settle()
    assert harness.running == ["prompt of third"]
    assert harness.visible("acme", "j1").finished


async def test_a_job_that_kills_alone_is_convicted_behind_its_tokens(harness: Harness) -> None:
    """Three workers ended while they ran nothing else: the job ends in crash_loop."""
    before(
        harness,
        tokens(0, 1),
        *(claim((2, n), f"w-{n}", alone=True) for n in range(2, 6)),
    )
    harness.send(job())
    await harness.settle()
    terminal = harness.visible("acme", "j1").terminal
    assert isinstance(terminal, ErrorEvent)
    assert (terminal.code, terminal.index) == (ErrorCode.CRASH_LOOP, 1)
    assert harness.engine.requests == {}
    assert harness.committable == 1


async def test_a_token_clears_a_suspect(harness: Harness) -> None:
    """Two deaths, then a writer that got further: the job is served beside others again."""
    before(harness, claim((1, 1), "w-a"), claim((2, 1), "w-b"), claim((2, 2), "w-c"))
    before(harness, tokens(0, 1, epoch=(2, 2), worker="w-c"))
    harness.send(job("other"))
    harness.send(job())
    await harness.settle()
    assert sorted(harness.running) == ["prompt of j1", "prompt of other"]


async def test_ten_rolling_restarts_convict_nobody(harness: Harness) -> None:
    """Writers that said farewell, or brought a token, are no strikes."""
    for n in range(1, 11):
        epoch = (1, n)
        before(
            harness,
            claim(epoch, f"w-{n}"),
            ReleaseRecord(job="j1", epoch=Epoch(*epoch), worker=f"w-{n}"),
        )
    before(harness, claim((2, 1), "x"), tokens(0, 1, epoch=(2, 1), worker="x"))
    harness.send(job())
    await harness.settle()
    assert harness.running == ["prompt of j1"]


async def test_a_suspect_keeps_its_place_across_rebalances(harness: Harness) -> None:
    """It waits for an empty engine; were it claimed anew each time its turn would never come."""
    harness.send(job("other"))
    await harness.settle()
    before(harness, claim((1, 1), "w-a"), claim((2, 1), "w-b"))
    suspect = harness.send(job())
    await harness.settle()
    written = kinds(harness)
    for generation in range(4, 8):
        harness.revoke(harness.state)
        state = harness.assign(generation=generation, end_offset=OLD)
        harness.deliver(state, suspect - 1, job("other"))
        harness.deliver(state, suspect, job())
        await harness.settle()
    assert kinds(harness) == written
    assert harness.running == ["prompt of other"]
    harness.step(Output(harness.key_of("prompt of other"), (1,), "a", finish="stop"))
    await harness.settle()
    assert harness.running == ["prompt of j1"]
    harness.step(Output(harness.key_of("prompt of j1"), (1,), "a", finish="stop"))
    await harness.settle()
    assert harness.visible("acme", "j1").finished
    assert harness.committable == suspect + 1


async def test_a_suspect_of_a_partition_that_is_gone_waits_no_longer(harness: Harness) -> None:
    """Its next owner has it: here nothing is written of it, and nothing waits for it."""
    harness.send(job("other"))
    await harness.settle()
    before(harness, claim((1, 1), "w-a"), claim((2, 1), "w-b"))
    harness.send(job())
    await harness.settle()
    written = kinds(harness)
    harness.revoke(harness.state)
    harness.assign(generation=5, end_offset=0)
    harness.send(job("fresh"))
    await harness.settle()
    assert kinds(harness) == written
    assert harness.running == ["prompt of fresh"]


async def drop_while_put_aside(harness: Harness) -> None:
    """Lose the partition before the job's dead letter is acknowledged."""
    harness.writer.down["jobs.dlq"] = asyncio.Event()
    await harness.settle()
    assert harness.state.unfinished == 1
    harness.revoke(harness.state)
    harness.assign(generation=9, member="another")
    await harness.settle()


async def test_a_record_that_is_refused_is_no_strike(harness: Harness) -> None:
    """The worker goes while the dead letter waits: it says so behind its claim, and nobody died."""
    before(harness, claim((1, 1), "w-a"))
    harness.send(job())
    await harness.settle()
    harness.writer.failures = [TooLargeError("MessageSizeTooLargeError", hopeless=True)]
    harness.step(Output(harness.key_of("prompt of j1"), (1,), "a"))
    await drop_while_put_aside(harness)
    assert kinds(harness) == ["claim", "claim", "release"]
    history = History()
    for record in (*harness.replies("acme", "j1"), claim((9, 1), "w-b")):
        history.feed(record)
    assert history.strikes == 1  # w-a's alone


async def test_a_claim_that_landed_among_refused_ones_is_no_strike(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a batch that is refused some may stand in the log: a release stands behind those."""
    append_all = harness.writer.append_all

    async def refuse(
        topic: str,
        partition: int | None,
        records: Sequence[tuple[bytes, bytes | None]],
        headers: Sequence[tuple[str, bytes | None]] = (),
        **_: float,
    ) -> list[int]:
        offsets = await append_all(topic, partition, records, headers)
        if topic == "replies.acme" and len(harness.writer.tried) == 1:
            raise TooLargeError("MessageSizeTooLargeError", hopeless=True)
        return offsets

    monkeypatch.setattr(harness.writer, "append_all", refuse)
    harness.send(job())
    await drop_while_put_aside(harness)
    assert kinds(harness) == ["claim", "release"]
    assert harness.lifecycle.parts.claims._claimed == {}
