"""A job whose adapter has a chat template: rendered first, and out of others' way."""

from __future__ import annotations

import asyncio

import pytest

from aril.schemas import ErrorCode, ErrorRecord, Job, JobError, Message
from aril.worker.adapters.chat_template import ChatTemplate
from aril.worker.adapters.weights import AdapterWeights
from aril.worker.batching import places
from tests.support.harness import Harness
from tests.support.older_jobs import OLD, before, claim

HI = (Message(role="user", content="hi"),)
ROWS = 4


class Store:
    """Each tenant's adapter has a template, but for zeta's."""

    async def get(self, tenant: str, name: str) -> AdapterWeights:
        """Return something with a digest, and perhaps a template."""
        own = ChatTemplate("its own")
        return AdapterWeights(
            name=name,
            digest=f"{tenant}/{name}",
            rank=1,
            modules={},
            template=None if tenant == "zeta" else own,
        )


class Renderer:
    """Renders when the test says so."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.asked: list[str] = []
        self.error: JobError | None = None
        self.closed = False

    async def render(self, job: Job, adapter: AdapterWeights) -> str:
        """Return the adapter's name for a text."""
        self.asked.append(job.id)
        await self.open.wait()
        if self.error is not None:
            raise self.error
        return f"by {adapter.digest}"

    def close(self) -> None:
        """Note it."""
        self.closed = True

    async def ended(self) -> None:
        """Note it as well."""
        self.close()


class SleepyRenderer(Renderer):
    """Takes a while, however often it is asked."""

    async def render(self, job: Job, adapter: AdapterWeights) -> str:
        """Sleep longer than what is called slow."""
        await asyncio.sleep(0.02)
        self.open.set()
        return await super().render(job, adapter)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Call preparing slow as soon as it has to wait."""
    monkeypatch.setattr(places, "SLOW_FETCH_SECONDS", 0.0)


async def test_what_was_rendered_is_tokenised() -> None:
    """Messages by the adapter's template; a prompt, or an adapter without one, needs none."""
    renderer = Renderer()
    renderer.open.set()
    async with Harness(adapters=Store(), templates=renderer) as harness:
        harness.send(Job(id="own", tenant="acme", messages=HI, adapter="a"))
        harness.send(Job(id="text", tenant="acme", prompt="text", adapter="a"))
        harness.send(Job(id="plain", tenant="zeta", messages=HI, adapter="a"))
        await harness.until(lambda: len(harness.running) == 3)
        prompts = {bytes(each.prompt_ids) for each in harness.engine.requests.values()}
    assert prompts == {b"by acme/a", b"text", b""}
    assert renderer.asked == ["own"]
    assert renderer.closed


async def test_one_that_takes_long_holds_up_its_own_tenant_only() -> None:
    """As many as a batch holds wait for it, and another tenant's job runs."""
    renderer = Renderer()
    async with Harness(adapters=Store(), templates=renderer, max_rows=ROWS) as harness:
        for number in range(5 * ROWS):
            harness.send(Job(id=f"slow-{number}", tenant="acme", messages=HI, adapter="a"))
        await harness.until(lambda: len(harness.dispatcher._places.slow) == ROWS)
        harness.send(Job(id="quick", tenant="zeta", prompt="quick", adapter="a"))
        await harness.until(lambda: harness.running == ["quick"])
        assert len(renderer.asked) == ROWS


async def test_its_refusal_ends_the_job() -> None:
    """The tenant is told what the template, or its bound, says."""
    renderer = Renderer()
    renderer.error = JobError(ErrorCode.INVALID_JOB, "messages: no", limit=2)
    renderer.open.set()
    async with Harness(adapters=Store(), templates=renderer) as harness:
        harness.send(Job(id="own", tenant="acme", messages=HI, adapter="a"))
        await harness.until(lambda: any(harness.replies("acme", "own")))
        (told,) = (each for each in harness.replies("acme", "own") if isinstance(each, ErrorRecord))
    assert (told.code, told.message, told.limit) == (ErrorCode.INVALID_JOB, "messages: no", 2)


async def test_what_is_being_rendered_when_the_worker_leaves_is_left_to_others() -> None:
    """The renderer's process ends with the worker, and that is no fault of the job's."""
    renderer = Renderer()
    async with Harness(adapters=Store(), templates=renderer) as harness:
        harness.send(Job(id="own", tenant="acme", messages=HI, adapter="a"))
        await harness.until(lambda: renderer.asked == ["own"])
        harness.dispatcher.close()
        renderer.error = JobError(ErrorCode.INTERNAL, "the worker is leaving")
        renderer.open.set()
        for _ in range(200):
            await asyncio.sleep(0)
        harness.lifecycle.release_all()
        await harness.answers.farewell(1)
        assert not harness.replies("acme", "own")
        assert harness.committable == 0


async def test_a_suspect_runs_though_its_messages_take_long_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It gives the engine back some times, and then it has it while its template is rendered."""
    monkeypatch.setattr(places, "SLOW_FETCH_SECONDS", 0.001)
    renderer = SleepyRenderer()
    async with Harness(adapters=Store(), templates=renderer) as harness:
        harness.assign(generation=3, end_offset=OLD)
        before(harness, claim((1, 1), "w-a"), claim((2, 1), "w-b"))
        harness.send(Job(id="j1", tenant="acme", messages=HI, adapter="a"))
        await harness.until(lambda: harness.running == ["by acme/a"])
    assert len(renderer.asked) > 1
