"""Engines whose steps are launched ahead answer as those that run one step after the other.

On a CPU a launched step has run when the next one is planned, but the host does all in the order
that it has on a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aril.schemas import Sampling
from aril.worker.constraints.compiler import ConstraintCompiler
from aril.worker.constraints.vocabulary import Vocabulary
from aril.worker.engine.request import GenerationRequest, Output
from aril.worker.engine.run_ahead import RunAhead
from aril.worker.engine.simple_loop import SimpleLoop
from tests.support.same_bits import make_engine
from tests.support.weights import random_adapter

if TYPE_CHECKING:
    from aril.worker.adapters import AdapterWeights
    from aril.worker.engine.engine import Engine
    from aril.worker.engine.model import Backbone

BEGINNING: Final = tuple((31 * at + 7) % 384 for at in range(9))


@dataclass(frozen=True)
class Asked:
    """A job, then so many steps, then perhaps one that is cancelled."""

    prompt: int
    own: int
    adapter: int | None
    sampling: Sampling
    constrained: bool
    steps: int
    cancel: int | None


SAMPLING = st.builds(
    Sampling,
    max_tokens=st.integers(1, 11),
    temperature=st.sampled_from([0.0, 1.0]),
    top_p=st.sampled_from([1.0, 0.9]),
    logprobs=st.sampled_from([None, None, 0, 2]),
    repetition_penalty=st.sampled_from([1.0, 1.0, 1.0, 1.3]),
    frequency_penalty=st.sampled_from([0.0, 0.0, 0.5]),
    min_tokens=st.integers(0, 1),
    stop=st.sampled_from([[], ["e"], ["th", " a"]]),
    stop_token_ids=st.sampled_from([[], [*range(3, 384, 7)]]),
    prompt_logprobs=st.sampled_from([None, None, None, 1]),
)
ASKED = st.lists(
    st.builds(
        Asked,
        prompt=st.integers(0, len(BEGINNING)),
        own=st.integers(1, 9),
        adapter=st.sampled_from([None, 0, 1, 2]),
        sampling=SAMPLING,
        constrained=st.sampled_from([False, False, False, True]),
        steps=st.integers(0, 4),
        cancel=st.sampled_from([None, None, 0, 1, 2, 4]),
    ),
    min_size=1,
    max_size=9,
)


@pytest.fixture(scope="module")
def adapters(one_layer: Backbone) -> list[AdapterWeights]:
    """Make more of them than there are slots."""
    return [random_adapter(one_layer.linear_shapes, f"a{rank}", rank=rank) for rank in (4, 1, 3)]


@pytest.fixture(scope="module")
def digits(one_layer: Backbone) -> Any:
    """Compile a constraint."""
    made = ConstraintCompiler(
        Vocabulary.of(one_layer.tokenizer, one_layer.vocab_size, one_layer.eos_token_ids)
    )
    sampling = Sampling(regex="[1-9][0-9]{0,5}")
    assert sampling.constraint is not None
    yield made.compile(sampling.constraint)
    made.close()


def job_of(
    key: int, asked: Asked, adapters: list[AdapterWeights], digits: Any
) -> GenerationRequest:
    """Make the request."""
    own = tuple((53 * key + 17 * at + 5) % 384 for at in range(asked.own))
    return GenerationRequest(
        key=key,
        prompt_ids=BEGINNING[: asked.prompt] + own,
        sampling=asked.sampling,
        seed=key,
        adapter=None if asked.adapter is None else adapters[asked.adapter],
        constraint=digits if asked.constrained else None,
    )


def play(
    engine: Engine, jobs: list[GenerationRequest], asked: list[Asked], *, cancel: bool
) -> dict[int, list[Output]]:
    """Submit, step and cancel as asked, then run until all is done; outputs by key, in order."""
    told: dict[int, list[Output]] = {}

    def step() -> None:
        for output in engine.step():
            own = told.setdefault(output.key, [])
            assert not own or not own[-1].last
            assert output.key not in gone
            own.append(output)

    gone: set[int] = set()
    for job, each in zip(jobs, asked, strict=True):
        engine.submit(job)
        for _ in range(each.steps):
            step()
        if cancel and each.cancel is not None and each.cancel <= job.key:
            engine.cancel(each.cancel)
            gone.add(each.cancel)
    while engine.has_work:
        step()
    assert engine.stats().kv_blocks_used == engine.stats().running == 0
    return told


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    asked=ASKED,
    kv_tokens=st.sampled_from([40, 96]),
    prefix_cache=st.booleans(),
    speculation=st.sampled_from([0, 0, 0, 3]),
)
def test_every_job_has_the_events_of_the_simple_loop(
    one_layer: Backbone,
    adapters: list[AdapterWeights],
    digits: Any,
    asked: list[Asked],
    kv_tokens: int,
    speculation: int,
    *,
    prefix_cache: bool,
) -> None:
    """Tokens, texts, log probabilities, finish reasons, in their order, to the last bit.

    One that is cancelled has the beginning of them, and another engine that goes on from what is
    visible then gives the rest.
    """
    jobs = [job_of(key, each, adapters, digits) for key, each in enumerate(asked)]
    limits = {"kv_tokens": kv_tokens, "prefix_cache": prefix_cache}
    expected = play(make_engine(one_layer, **limits), jobs, asked, cancel=False)
    engine = make_engine(one_layer, run_ahead="on", speculation=speculation, **limits)
    assert isinstance(engine._run, SimpleLoop if speculation else RunAhead)
    told = play(engine, jobs, asked, cancel=True)
    unfinished = []
    for key, events in expected.items():
        own = told.get(key, [])
        assert own == events[: len(own)]
        if not own or not own[-1].last:
            unfinished.append(key)
    cancelled = {each.cancel for each in asked}
    assert cancelled.issuperset(unfinished)
    for key in unfinished:
        visible = tuple(token for output in told.get(key, []) for token in output.ids)
        engine.submit(replace(jobs[key], resume_ids=visible))
        rest = []
        while engine.has_work:
            rest += engine.step()
        assert rest == expected[key][len(visible) :]
