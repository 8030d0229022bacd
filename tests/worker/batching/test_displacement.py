"""A tenant's flood and another's job: rows are given up, and no token is lost or doubled by it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aril.schemas import Cancel, DoneEvent, Job, Sampling, encode_request
from aril.worker.adapters import AdapterWeights
from aril.worker.engine.request import Output
from aril.worker.stages import Stage
from tests.support.harness import JOBS, Harness

if TYPE_CHECKING:
    from aril.worker.job import Entry

ROWS = 4


def flood(harness: Harness, count: int, **given: Any) -> None:
    """Send jobs of one tenant, a1 first."""
    for number in range(1, count + 1):
        harness.send(Job(id=f"a{number}", tenant="acme", prompt=f"a{number}", **given))


def send(harness: Harness, name: str = "z", **given: Any) -> None:
    """Send the other tenant's job."""
    harness.send(Job(id=name, tenant="zeta", prompt=name, **given))


def entry_of(harness: Harness, name: str) -> Entry:
    """Return a job."""
    return next(entry for entry in harness.lifecycle._held.jobs if entry.job_id == name)


async def full(harness: Harness) -> None:
    """Fill all rows, with one job ahead, and let each bring its first token."""
    flood(harness, 12)
    await harness.until(lambda: harness.running == ["a1", "a2", "a3", "a4", "a5"])
    harness.step(*(Output(harness.key_of(f"a{n}"), (n,), f"{n}") for n in range(1, ROWS + 1)))
    await harness.settle()


async def test_another_tenants_job_has_a_row_at_once() -> None:
    """The youngest of the flood gives it up; the next of the flood is ahead again behind it."""
    async with Harness(max_rows=ROWS) as harness:
        await full(harness)
        send(harness)
        await harness.until(lambda: "z" in harness.running)
        assert harness.running == ["a1", "a2", "a3", "z", "a4"]
        assert entry_of(harness, "z").stage is Stage.RUNNING
        assert entry_of(harness, "a5").stage is Stage.DISPLACED
        displaced = harness.metrics.registry.get_sample_value("aril_jobs_displaced_total")
        assert displaced == 1, "the one ahead had no row to give"


async def test_what_gave_way_goes_on_behind_what_it_had_brought() -> None:
    """Under the same epoch, without a claim, and what was under way for it counts no more."""
    async with Harness(max_rows=ROWS) as harness:
        await full(harness)
        old = harness.key_of("a4")
        send(harness)
        await harness.until(lambda: "z" in harness.running)
        again = harness.key_of("a4")
        assert harness.engine.requests[again].resume_ids == (4,)
        harness.step(Output(old, (99,), "late"))  # of the step that ran as it gave way
        harness.step(Output(harness.key_of("z"), (7,), "seven", finish="stop"))
        await harness.settle()
        harness.step(Output(again, (5,), "5", finish="stop"))
        await harness.settle()
        seen = harness.visible("acme", "a4")
        assert (seen.token_ids, seen.text) == ([4, 5], "45")
        assert isinstance(seen.terminal, DoneEvent)
        assert seen.terminal.usage.completion_tokens == 2
        assert len(harness.replies("acme", "a4")) == 3
        assert harness.visible("zeta", "z").text == "seven"


async def test_shares_become_even_and_stay_so() -> None:
    """Two floods have half the rows each, whoever was first; then nothing moves."""
    async with Harness(max_rows=ROWS) as harness:
        await full(harness)
        for number in range(8):
            send(harness, f"z{number}")
        half = ["a", "a", "z", "z"]
        await harness.until(lambda: sorted(name[0] for name in harness.running[:ROWS]) == half)
        await harness.settle()
        cancelled = len(harness.engine.cancelled)
        await harness.settle()
        assert len(harness.engine.cancelled) == cancelled


async def test_a_slot_is_given_up_for_another_tenants_adapter() -> None:
    """Rows are free and slots are not: the flood's adapter with the fewest rows goes."""

    class Store:
        async def get(self, tenant: str, name: str) -> AdapterWeights:
            return AdapterWeights(name=name, digest=f"{tenant}/{name}", rank=1, modules={})

    async with Harness(max_rows=8, slots=2, adapters=Store()) as harness:
        for number, adapter in enumerate("xxy"):
            name = f"a{number}"
            harness.send(Job(id=name, tenant="acme", prompt=name, adapter=adapter))
        await harness.settle()
        assert harness.running == ["a0", "a1", "a2"]
        send(harness, adapter="own")
        await harness.settle()
        assert harness.running[:3] == ["a0", "a1", "z"]


async def test_a_job_that_waits_for_a_row_again_can_be_cancelled() -> None:
    """It ends behind what it had brought."""
    async with Harness(max_rows=ROWS) as harness:
        await full(harness)
        for number in range(4):
            send(harness, f"z{number}")
        await harness.until(lambda: entry_of(harness, "a4").stage is Stage.DISPLACED)
        harness.send(encode_request(Cancel(id="a4", tenant="acme")))
        await harness.settle()
        seen = harness.visible("acme", "a4")
        assert seen.token_ids == [4]
        assert seen.terminal is not None


async def test_a_displaced_job_is_kept_across_a_rebalance() -> None:
    """As a running one is: its partition comes back, and it goes on where it was."""
    async with Harness(max_rows=ROWS) as harness:
        await full(harness)
        for number in range(4):
            send(harness, f"z{number}")
        displaced = entry_of(harness, "a4")
        await harness.until(lambda: displaced.stage is Stage.DISPLACED)
        before = harness.state
        harness.revoke(before)
        harness.assign(generation=4, end_offset=16, source=JOBS)
        assert displaced.stage is Stage.DISPLACED
        assert displaced.kept


async def test_counters_go_by_the_work_done() -> None:
    """Jobs that ask for 4096 tokens and stop after one cost one: their tenant is not set back."""
    async with Harness(max_rows=1) as harness:
        for number in range(6):
            name = f"a{number}"
            asks = Sampling(max_tokens=4_096)
            harness.send(Job(id=name, tenant="acme", prompt=name, sampling=asks))
            harness.send(
                Job(
                    id=f"z{number}",
                    tenant="zeta",
                    prompt=f"z{number}",
                    sampling=Sampling(max_tokens=1),
                )
            )
        order = []
        for _ in range(12):
            await harness.settle()
            name = harness.running[0]
            order.append(name[0])
            harness.step(Output(harness.key_of(name), (1,), "x", finish="stop"))
        assert sorted(order[2:8]) == ["a", "a", "a", "z", "z", "z"]
