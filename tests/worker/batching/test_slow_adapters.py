"""An adapter store that is slow holds up those who wait for it, and nobody else."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from aril.schemas import (
    Cancel,
    ClaimRecord,
    ErrorCode,
    ErrorRecord,
    Job,
    ReleaseRecord,
    encode_request,
)
from aril.worker.adapters import AdapterWeights
from aril.worker.batching import dispatch, places
from aril.worker.engine.request import Output
from aril.worker.stages import Stage
from tests.support.harness import Harness
from tests.support.older_jobs import OLD, before, claim, job

if TYPE_CHECKING:
    from aril.worker.job import Entry

ROWS = 4
COLD = [f"cold{n}" for n in range(40)]


class SlowStore:
    """Adapters of tenants named `cold…` come when the test says so, others at once."""

    def __init__(self, slow: str = "cold") -> None:
        self.slow = slow
        self.ill = False
        self.open = asyncio.Event()
        self.asked: list[str] = []

    async def get(self, tenant: str, name: str) -> AdapterWeights:
        """Return something with a digest."""
        self.asked.append(tenant)
        if tenant.startswith(self.slow):
            await self.open.wait()
        if self.ill:
            raise OSError
        return AdapterWeights(name=name, digest=f"{tenant}/{name}", rank=1, modules={})


def send(harness: Harness, tenant: str, name: str) -> None:
    """Send a job with an adapter."""
    harness.send(Job(id=name, tenant=tenant, prompt=name, adapter="a"))


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Call a fetch slow as soon as it has to wait."""
    monkeypatch.setattr(places, "SLOW_FETCH_SECONDS", 0.0)


async def test_warm_jobs_pass_cold_ones() -> None:
    """A flood of one tenant whose adapter does not come: another tenant's job runs at once."""
    store = SlowStore()
    async with Harness(tenants=("cold0", "warm"), adapters=store, max_rows=ROWS) as harness:
        for number in range(5 * ROWS):
            send(harness, "cold0", f"cold-{number}")
        await harness.until(lambda: len(harness.dispatcher._places.slow) == ROWS)
        send(harness, "warm", "hello")
        await harness.until(lambda: harness.running == ["hello"])
        assert store.asked.count("cold0") == ROWS  # its other jobs wait in the backlog
        store.open.set()
        await harness.until(lambda: "cold-0" in harness.running)


async def test_what_waits_for_a_slow_store_is_bounded() -> None:
    """One job a tenant beyond the first batch, and no more than some batches of them."""
    store, tenants = SlowStore(), [f"cold{n}" for n in range(80)]
    async with Harness(tenants=(*tenants, "warm"), adapters=store, max_rows=ROWS) as harness:
        for tenant in tenants:
            for number in range(3):
                send(harness, tenant, f"{tenant}-{number}")
        most = places.SLOW_BATCHES * ROWS
        await harness.until(lambda: len(store.asked) >= most)
        await harness.settle()
        assert len(store.asked) <= most + (1 + dispatch.OTHER_BATCHES) * ROWS < len(tenants)
        store.open.set()
        await harness.until(lambda: len(harness.running) > 0)
        await harness.settle()
        assert len(harness.running) <= ROWS + 1


async def test_a_cold_job_that_ends_meanwhile_frees_its_place() -> None:
    """A deadline or a cancel takes it out, and nothing of it is left."""
    store = SlowStore()
    async with Harness(tenants=("cold0",), adapters=store, max_rows=ROWS) as harness:
        send(harness, "cold0", "one")
        await harness.until(lambda: len(harness.dispatcher._places.slow) == 1)
        harness.lifecycle.release_all()
        assert harness.dispatcher._places.chosen == set()
        store.open.set()
        await harness.settle()
        assert harness.dispatcher._places.slow == harness.dispatcher._places.abandoned == set()
        assert harness.running == []


async def test_jobs_that_end_while_they_are_prepared_are_bounded() -> None:
    """What was begun for them goes on: without a bound it would be begun for any number."""
    store = SlowStore()
    async with Harness(tenants=("cold0",), adapters=store, max_rows=ROWS) as harness:
        for number in range(10 * ROWS):
            send(harness, "cold0", f"c{number}")
            await harness.settle(3)
            harness.send(encode_request(Cancel(id=f"c{number}", tenant="cold0")))
            await harness.settle(3)
        asked = store.asked.count("cold0")
        assert len(harness.dispatcher._places.abandoned) == asked <= places.SLOW_BATCHES * ROWS
        store.open.set()
        await harness.until(lambda: not harness.dispatcher._places.abandoned)
        send(harness, "cold0", "last")
        await harness.until(lambda: harness.running == ["last"])


def finish(harness: Harness, prompt: str) -> None:
    """Let the engine answer a job."""
    harness.step(Output(harness.key_of(prompt), (1,), "a", finish="stop"))


def inherit_a_suspect(harness: Harness) -> Entry:
    """Send a job that two workers crashed with."""
    before(harness, claim((1, 1), "w-a"), claim((2, 1), "w-b"))
    harness.send(job(adapter="a"))
    return harness.state.entries[-1]


async def test_a_suspect_whose_adapter_is_slow_gives_the_engine_back() -> None:
    """Others run meanwhile; its claim is released, and once it can, it runs alone."""
    store = SlowStore("acme")
    async with Harness(tenants=("acme", "warm"), adapters=store, max_rows=ROWS) as harness:
        harness.assign(generation=3, end_offset=OLD)
        suspect = inherit_a_suspect(harness)
        await harness.until(lambda: suspect.stage is Stage.FETCHING)
        for name in ("x", "y"):
            send(harness, "warm", name)
        await harness.until(lambda: harness.running == ["x", "y"])
        alone, released = harness.replies("acme", "j1")[-2:]
        assert isinstance(alone, ClaimRecord)
        assert alone.alone
        assert isinstance(released, ReleaseRecord)
        assert released.epoch == alone.epoch
        store.open.set()
        await harness.until(lambda: suspect.stage is Stage.WAITING)
        finish(harness, "x")
        await harness.settle()
        assert harness.running == ["y"]
        finish(harness, "y")
        await harness.until(lambda: harness.running == ["prompt of j1"])
        again = harness.replies("acme", "j1")[-1]
        assert isinstance(again, ClaimRecord)
        assert again.alone
        assert again.epoch > alone.epoch


async def test_a_suspect_whose_adapter_is_refused_is_told_so() -> None:
    """It ends as any other whose adapter cannot be had."""
    store = SlowStore("acme")
    async with Harness(tenants=("acme",), adapters=store, max_rows=ROWS) as harness:
        harness.assign(generation=3, end_offset=OLD)
        suspect = inherit_a_suspect(harness)
        await harness.until(lambda: suspect.stage is Stage.FETCHING)
        store.ill = True
        store.open.set()
        await harness.until(lambda: suspect.stage is Stage.SETTLED)
        end = harness.replies("acme", "j1")[-1]
        assert isinstance(end, ErrorRecord)
        assert (end.code, end.retryable) == (ErrorCode.INTERNAL, True)
        assert harness.dispatcher._places.slow == harness.dispatcher._places.abandoned == set()


async def bring_a_job_behind_a_suspect(harness: Harness, store: SlowStore) -> None:
    """Let the store bring a job's adapter while a suspect has the engine."""
    harness.assign(generation=3, end_offset=OLD)
    send(harness, "cold0", "late")
    await harness.until(lambda: len(harness.dispatcher._places.slow) == 1)
    inherit_a_suspect(harness)
    await harness.until(lambda: harness.running == ["prompt of j1"])
    store.open.set()
    await harness.until(lambda: len(harness.dispatcher._behind) == 1)


async def test_a_suspect_does_not_wait_for_a_slow_store_that_others_need() -> None:
    """It runs at once and alone: what the store brings meanwhile comes behind it."""
    store = SlowStore()
    async with Harness(tenants=("acme", "cold0"), adapters=store, max_rows=ROWS) as harness:
        await bring_a_job_behind_a_suspect(harness, store)
        await harness.settle()
        assert harness.running == ["prompt of j1"]
        finish(harness, "prompt of j1")
        await harness.until(lambda: harness.running == ["late"])


async def test_what_comes_behind_a_suspect_may_end_before_its_turn() -> None:
    """It is taken out, and nothing of it runs."""
    store = SlowStore()
    async with Harness(tenants=("acme", "cold0"), adapters=store, max_rows=ROWS) as harness:
        await bring_a_job_behind_a_suspect(harness, store)
        harness.send(encode_request(Cancel(id="late", tenant="cold0")))
        await harness.until(lambda: not harness.dispatcher._behind)
        finish(harness, "prompt of j1")
        await harness.settle()
        assert harness.running == []
