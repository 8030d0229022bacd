"""What jobs ask of adapters, from the record to the engine and to what their tenant is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from schemas import Activation, DoneEvent, JobError
from schemas.errors import ErrorCode
from tests.support.harness import Harness
from tests.support.older_jobs import OLD, before, job, tokens
from worker.adapters import AdapterWeights
from worker.engine.request import GenerationRequest, Output

PROMPT = (1, 7, 8, 2, 7, 8, 3)
SAYS = "later"  # an adapter with the invocation 7, 8


@dataclass
class Store:
    """Adapters without weights: a tenant's content is told by its name."""

    invocations: dict[str, tuple[int, ...]] = field(default_factory=lambda: {SAYS: (7, 8)})

    async def get(self, tenant: str, name: str) -> AdapterWeights:
        """Return one."""
        name = name.partition("@")[0]
        if name == "nobodys":
            raise JobError(ErrorCode.UNKNOWN_ADAPTER, f"adapter {name}: no such adapter")
        return AdapterWeights(
            name=name,
            digest=f"{tenant}/{name}",
            rank=1,
            modules={},
            invocation=self.invocations.get(name, ()),
        )


@pytest.fixture
def store() -> Store:
    """Return what every harness here gets its adapters from."""
    return Store()


def asked(**fields: Any) -> Any:
    """Return a job of token ids."""
    return job(prompt=None, **{"token_ids": PROMPT} | fields)


async def answered(harness: Harness, sent: Any) -> tuple[GenerationRequest, DoneEvent]:
    """Send a job and let the engine answer it; return what it was asked, and the terminal."""
    harness.send(sent)
    await harness.settle()
    request = next(reversed(harness.engine.requests.values()))
    harness.step(Output(request.key, (5,), "e", finish="stop"))
    await harness.settle()
    terminal = harness.visible("acme", sent.id).terminal
    assert isinstance(terminal, DoneEvent)
    return request, terminal


async def test_an_adapter_with_an_invocation_works_from_its_last_occurrence_on(
    store: Store,
) -> None:
    """The engine is told from where on, and so is the tenant."""
    async with Harness(adapters=store) as harness:
        request, done = await answered(harness, asked(adapter=SAYS))
        assert request.adapter is not None
        assert request.active_from == 4
        assert (done.adapter, done.digest, done.activation) == (SAYS, f"acme/{SAYS}", Activation(4))


async def test_an_invocation_that_is_not_in_the_prompt(store: Store) -> None:
    """The backbone answers, without a slot, and the tenant is told so."""
    async with Harness(adapters=store) as harness:
        request, done = await answered(harness, asked(adapter=SAYS, token_ids=(7, 7, 1)))
        assert (request.adapter, request.active_from) == (None, 0)
        assert (done.digest, done.activation) == (f"acme/{SAYS}", Activation(None))
        assert harness.dispatcher.running_adapters == []


async def test_other_adapters_tell_nothing_of_it(store: Store) -> None:
    """Nor does the backbone."""
    async with Harness(adapters=store) as harness:
        for name, adapter in (("j1", "plain"), ("j2", None)):
            request, done = await answered(harness, asked(name=name, adapter=adapter))
            assert (request.active_from, done.activation) == (0, None)


async def test_an_answer_that_says_the_invocation_changes_nothing(store: Store) -> None:
    """A job that is taken over has it among its visible tokens: only the prompt is searched."""
    async with Harness(adapters=store) as harness:
        harness.state = harness.assign(generation=3, end_offset=OLD)
        before(harness, tokens(0, 7, 8))
        request, done = await answered(harness, asked(adapter=SAYS))
        assert request.resume_ids == (7, 8)
        assert (request.active_from, done.activation) == (4, Activation(4))
