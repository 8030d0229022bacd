"""What is launched ahead and what is not, what is dropped of it, and what a GPU is waited for.

Without a GPU: what crosses is counted on a device that is none (tests/support/fake_gpu.py).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from aril.schemas import Sampling
from aril.worker.engine import step_sampling
from aril.worker.engine.request import GenerationRequest
from aril.worker.engine.run_ahead import RunAhead
from aril.worker.engine.simple_loop import SimpleLoop
from tests.support.engine_runs import finish
from tests.support.gpu_engines import count_replays, engine_on, jobs_of, run
from tests.support.same_bits import make_engine, tokens_of
from tests.support.weights import random_adapter

if TYPE_CHECKING:
    from aril.worker.engine.config import Graphs
    from aril.worker.engine.config import RunAhead as RunsAhead
    from aril.worker.engine.model import Backbone
    from aril.worker.engine.step_plan import StepPlan
    from tests.support.fake_gpu import FakeGpu


def test_what_ends_by_a_stop_leaves_the_others_alone(one_layer: Backbone) -> None:
    """A row that ran once too often is in no answer, and steps are as many as without it."""
    greedy = Sampling(max_tokens=12, temperature=0.0, ignore_eos=True)
    jobs = [
        GenerationRequest(key=key, prompt_ids=(9, 7, key), sampling=greedy, seed=0, adapter=None)
        for key in range(3)
    ]
    tokens = tokens_of(finish(make_engine(one_layer), *jobs))
    stop = tokens[1][3]
    at = tokens[1].index(stop)
    ending = greedy.model_copy(update={"stop_token_ids": (stop,)})
    jobs[1] = replace(jobs[1], sampling=ending)
    engine = make_engine(one_layer, run_ahead="on")
    assert tokens_of(finish(engine, *jobs)) == {**tokens, 1: tokens[1][: at + 1]}
    assert engine.stats().steps == 12


def test_what_is_in_flight_of_one_that_is_cancelled_is_dropped(one_layer: Backbone) -> None:
    """It is settled though nobody is left, and is nothing of the next of that name."""
    sampling = Sampling(max_tokens=5, temperature=0.0, ignore_eos=True)
    jobs = [
        GenerationRequest(key=0, prompt_ids=prompt, sampling=sampling, seed=0, adapter=None)
        for prompt in ((9, 7, 5), (8, 6, 4))
    ]
    expected = [finish(make_engine(one_layer), job)[0] for job in jobs]
    engine = make_engine(one_layer, run_ahead="on")
    engine.submit(jobs[0])
    assert engine.step() == expected[0][:1]
    engine.cancel(0)
    assert engine.has_work
    assert engine.stats().kv_blocks_used > 0
    assert engine.step() == []
    assert not engine.has_work
    assert engine.stats().kv_blocks_used == 0
    engine.submit(jobs[0])
    engine.step()
    engine.cancel(0)
    assert finish(engine, jobs[1])[0] == expected[1]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.usefixtures("gpu")
def test_logits_that_are_no_distribution_end_their_row_alone(
    one_layer: Backbone, device: str
) -> None:
    """What is in place of its token goes into the next step as any token would."""
    broken = random_adapter(one_layer.linear_shapes, "broken", rank=1)
    for module in broken.modules.values():
        module.b.fill_(torch.inf)
    sampling = Sampling(max_tokens=5, temperature=0.0, ignore_eos=True)
    jobs = [
        GenerationRequest(
            key=key,
            prompt_ids=(9, 7, 5, 3, key),
            sampling=sampling,
            seed=0,
            adapter=broken if key == 1 else None,
        )
        for key in range(3)
    ]
    told, named = {}, {}
    ways: tuple[RunsAhead, ...] = ("off", "on")
    for way in ways:
        engine = engine_on(one_layer, device, run_ahead=way)
        told[way] = finish(engine, *jobs)
        named[way] = engine.stats().kv_blocks_named
    assert [str(output.error) for output in told["on"][1]] == [
        str(output.error) for output in told["off"][1]
    ]
    assert told["on"][1][0].error is not None
    assert tokens_of(told["on"]) == tokens_of(told["off"])
    assert named["on"] == named["off"] > 0  # none of the broken one's


def test_sampling_that_fails_ends_its_row_alone(
    one_layer: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in a step behind another one, whose tokens it has to be given once more."""
    sampling = Sampling(max_tokens=6, ignore_eos=True)
    jobs = [
        GenerationRequest(
            key=key, prompt_ids=(3, 4, key), sampling=sampling, seed=key, adapter=None
        )
        for key in range(3)
    ]
    expected = run(make_engine(one_layer), jobs)
    for name in ("sample", "launch"):
        own = getattr(step_sampling, name)

        def fail(logits: Any, rows: Any, *more: Any, own: Any = own) -> Any:
            if any(row.key == 1 and row.index == 3 for row in rows):
                raise RuntimeError("not this one")
            return own(logits, rows, *more)

        monkeypatch.setattr(step_sampling, name, fail)
    engine = make_engine(one_layer, run_ahead="on")
    outputs = finish(engine, *jobs)
    assert outputs[1][-1].error is not None
    assert tokens_of(outputs) == {**expected, 1: expected[1][:3]}


@pytest.mark.parametrize(
    ("device", "asked", "ahead"),
    [("cpu", "auto", False), ("cpu", "on", True), ("cuda", "auto", True), ("cuda", "off", False)],
)
@pytest.mark.usefixtures("gpu")
def test_where_steps_are_launched_ahead(
    one_layer: Backbone, device: str, asked: Any, *, ahead: bool
) -> None:
    """On a GPU, unless somebody says otherwise."""
    engine = engine_on(one_layer, device, run_ahead=asked)
    assert isinstance(engine._run, RunAhead if ahead else SimpleLoop)


@pytest.mark.parametrize("graphs", ["off", "auto"])
@pytest.mark.parametrize("seed", [1, 3])
def test_a_step_is_launched_before_the_last_one_is_waited_for(
    one_layer: Backbone, gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch, graphs: Graphs, seed: int
) -> None:
    """Two pinned copies a step that is launched, one wait a step that is read, and no other.

    Tokens come by one copy to pinned memory, where no number is before it was waited for.
    """
    jobs = [
        replace(job, sampling=job.sampling.model_copy(update={"repetition_penalty": 1.0}))
        for job in jobs_of(one_layer, seed)
    ]
    expected = run(engine_on(one_layer, "cpu"), jobs)
    engine = engine_on(one_layer, "cuda", graphs, run_ahead="auto")
    forward: Any = engine._sample._forward
    launches: list[int] = []  # waits before each one

    def launch(plan: StepPlan, *more: Any) -> Any:
        launches.append(len(gpu.reads))
        return forward(plan, *more)

    monkeypatch.setattr(engine._sample, "_forward", launch)
    loads, steps, ahead = 0, 0, 0
    replays = count_replays(gpu)

    def count() -> None:
        nonlocal loads, steps, ahead
        of_loads = 2 * (engine.stats().adapter_loads - loads)
        loads = engine.stats().adapter_loads
        assert len(gpu.told) - of_loads <= 2 * len(launches)
        assert not gpu.late
        assert gpu.reads == ["event"]
        assert len(gpu.fetched) == len(launches)
        assert set(launches) <= {0}  # whatever this step launches, it does so before it waits
        steps += 1
        ahead += engine._scheduler.in_flight.plan is not None
        launches.clear()
        gpu.reset()
        gpu.streams[0].run()

    gpu.reset()
    assert run(engine, jobs, count) == expected
    assert loads
    assert steps > 5
    assert ahead > steps / 2
    assert (count_replays(gpu) > replays) == (graphs == "auto")
    assert engine.stats().kv_blocks_named > 0


@pytest.mark.parametrize(
    "asked", [{"repetition_penalty": 1.2}, {"presence_penalty": 0.3}, {"prompt_logprobs": 0}]
)
def test_what_needs_the_last_token_is_launched_behind_it(
    one_layer: Backbone, asked: dict[str, Any]
) -> None:
    """All rows of a step then, and ahead again once such a row is gone."""
    plain: dict[str, Any] = {"temperature": 0.0, "ignore_eos": True}
    engine = make_engine(one_layer, run_ahead="on")
    for key, sampling in enumerate(
        [Sampling(max_tokens=9, **plain), Sampling(max_tokens=4, **plain, **asked)]
    ):
        engine.submit(
            GenerationRequest(
                key=key, prompt_ids=(5, 6, 7), sampling=sampling, seed=0, adapter=None
            )
        )
    in_flight = []
    while engine.has_work:
        engine.step()
        in_flight.append(engine._scheduler.in_flight.plan is not None)
    assert in_flight == [False] * 4 + [True] * 4 + [False]
