"""What jobs ask of adapters, from the record to the engine and to what their tenant is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from aril.schemas import Activation, DoneEvent, ErrorEvent, JobError, MixedAdapter
from aril.schemas.errors import ErrorCode
from aril.worker.adapters import AdapterWeights, LoraModule
from aril.worker.adapters.trained_tokens import TokenRows, TrainedTokens
from aril.worker.adapters.weights import ExpertsModule
from aril.worker.engine.mixture import Mixture
from aril.worker.engine.request import GenerationRequest, Output
from tests.support.harness import Harness
from tests.support.older_jobs import OLD, before, job, tokens

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
        own = torch.ones(1)
        a, b = torch.ones(1, 1), torch.ones(1, 1)
        module = LoraModule(
            1,
            1.0,
            a,
            b,
            magnitude=own if name == "dora" else None,
            bias=own if name == "biased" else None,
        )
        rows = TokenRows((3,), torch.ones(1, 1))
        return AdapterWeights(
            name=name,
            digest=f"{tenant}/{name}",
            rank=1,
            modules={"linear": module},
            experts={"up": ExpertsModule(1, 1.0, a[None], b[None])} if name == "experts" else {},
            tokens=TrainedTokens(rows) if name == "tokens" else None,
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


async def refused(harness: Harness, sent: Any) -> ErrorEvent:
    """Send a job that ends in an error without the engine."""
    harness.send(sent)
    await harness.settle()
    terminal = harness.visible("acme", sent.id).terminal
    assert isinstance(terminal, ErrorEvent)
    assert not harness.engine.requests
    return terminal


async def test_how_strong_an_adapter_is_comes_to_the_engine(store: Store) -> None:
    """As the job says, 1 where it says nothing."""
    async with Harness(adapters=store) as harness:
        for name, scale in (("j1", 0.25), ("j2", 1.0)):
            request, _ = await answered(
                harness, asked(name=name, adapter="plain", adapter_scale=scale)
            )
            assert request.adapter_scale == scale


async def test_a_mixture_comes_to_the_engine_whole(store: Store) -> None:
    """Members and weights in the job's order; the tenant is told the digests of all."""
    shares = [{"name": "one", "weight": 0.5}, {"name": f"two@{'0' * 64}", "weight": -1.5}]
    async with Harness(adapters=store) as harness:
        sent = asked(adapters=shares, adapter_scale=2.0)
        request, done = await answered(harness, sent)
        assert isinstance(request.adapter, Mixture)
        assert [each.name for each in request.adapter.members] == ["one", "two"]
        assert (request.adapter.weights, request.adapter_scale) == ((0.5, -1.5), 2.0)
        assert done.adapters == (
            MixedAdapter("one", "acme/one", 0.5),
            MixedAdapter("two", "acme/two", -1.5),
        )
        assert (done.adapter, done.digest, done.activation) == (None, None, None)


async def test_each_adapter_of_a_mixture_counts(store: Store) -> None:
    """For the batch's slots, and for where partitions are placed."""
    async with Harness(adapters=store, slots=2) as harness:
        harness.send(asked(name="j1", adapters=[{"name": "one"}, {"name": "two"}]))
        harness.send(asked(name="j2", adapter="three"))
        await harness.settle()
        assert [len(batch) for batch in harness.engine.submitted] == [1, 1]
        found = sorted(digest for _, digest in harness.dispatcher.running_adapters)
        assert found == ["acme/one", "acme/three", "acme/two"]


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("dora", "use_dora"),
        (SAYS, "alora_invocation_tokens"),
        ("biased", "lora_bias"),
        ("tokens", "trained tokens"),
        ("experts", "target_parameters"),
    ],
)
async def test_what_has_no_sum_is_refused_by_name(store: Store, name: str, field: str) -> None:
    """PEFT would take it and leave that out, or make something else of it."""
    async with Harness(adapters=store) as harness:
        error = await refused(harness, asked(adapters=[{"name": "plain"}, {"name": name}]))
        assert error.code is ErrorCode.INVALID_JOB
        assert f"adapters: {name} " in error.message
        assert field in error.message


async def test_dora_has_one_strength(store: Store) -> None:
    """Any other is refused by name; that one is served."""
    async with Harness(adapters=store) as harness:
        error = await refused(harness, asked(adapter="dora", adapter_scale=0.5))
        assert error.code is ErrorCode.INVALID_JOB
        assert "adapter_scale: dora" in error.message
        await answered(harness, asked(name="j2", adapter="dora", adapter_scale=1))


async def test_a_mixture_of_more_adapters_than_slots(store: Store) -> None:
    """It could never run here: the tenant is told how many may."""
    async with Harness(adapters=store, slots=1) as harness:
        error = await refused(harness, asked(adapters=[{"name": "one"}, {"name": "two"}]))
        assert (error.code, error.limit, error.given) == (ErrorCode.LIMIT_EXCEEDED, 1, 2)


async def test_an_adapter_of_a_mixture_that_is_not_there(store: Store) -> None:
    """The error names it."""
    async with Harness(adapters=store) as harness:
        error = await refused(harness, asked(adapters=[{"name": "one"}, {"name": "nobodys"}]))
        assert error.code is ErrorCode.UNKNOWN_ADAPTER
        assert "nobodys" in error.message


async def test_a_mixture_that_is_taken_over(store: Store) -> None:
    """It goes on behind what is visible, with the same adapters."""
    async with Harness(adapters=store) as harness:
        harness.state = harness.assign(generation=3, end_offset=OLD)
        before(harness, tokens(0, 1, 2))
        request, done = await answered(harness, asked(adapters=[{"name": "one", "weight": 0.5}]))
        assert request.resume_ids == (1, 2)
        assert done.adapters == (MixedAdapter("one", "acme/one", 0.5),)
