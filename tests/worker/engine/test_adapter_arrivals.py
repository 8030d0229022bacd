"""An adapter comes into its slot beside the steps: its own rows wait for it, and nobody else.

On a device that is none, whose second stream does nothing until it is told to.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch

from aril.schemas import Sampling
from aril.worker.adapters.trained_tokens import TokenRows, TrainedTokens
from aril.worker.engine.request import GenerationRequest
from tests.support.gpu_engines import count_replays, engine_on, jobs_of, run
from tests.support.weights import random_adapter

if TYPE_CHECKING:
    from aril.worker.adapters import AdapterWeights
    from aril.worker.engine.model import Backbone
    from tests.support.fake_gpu import FakeGpu


def adapters_of(backbone: Backbone, kind: str) -> list[AdapterWeights]:
    """Draw three of a kind, of other ranks."""
    shapes = backbone.linear_shapes
    targets = tuple(shapes) if kind == "output" else None
    found = [
        random_adapter(shapes, f"a{rank}", rank=rank, dora=kind == "dora", targets=targets)
        for rank in (4, 1, 3)
    ]
    if kind == "bias":
        found = [
            replace(
                each,
                modules={
                    name: replace(module, bias=torch.linspace(-1, 1, len(module.b)))
                    for name, module in each.modules.items()
                },
            )
            for each in found
        ]
    if kind == "tokens":
        rows = [
            TokenRows((7, 9, place), torch.randn(3, 64, generator=torch.Generator().manual_seed(1)))
            for place in range(3)
        ]
        found = [
            replace(each, tokens=TrainedTokens(own, own))
            for each, own in zip(found, rows, strict=True)
        ]
    return found


@pytest.mark.parametrize(
    "kind",
    [
        "plain",
        "bias",
        *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("dora", "output", "tokens")),
    ],
)
def test_an_adapter_on_its_way_stops_nobody_else(
    one_layer: Backbone, gpu: FakeGpu, kind: str
) -> None:
    """Others decode on while it is copied; its rows come when it is there, with its own answer.

    The device's second stream does nothing until it is told to: a row that ran before would have
    other tokens. Slots are taken again by adapters of other ranks.
    """
    adapters = adapters_of(one_layer, kind)

    def job(key: int, tokens: int, adapter: AdapterWeights | None) -> GenerationRequest:
        sampling = Sampling(max_tokens=tokens, temperature=0.0, ignore_eos=True)
        return GenerationRequest(
            key=key, prompt_ids=(5, key, 9), sampling=sampling, seed=key, adapter=adapter
        )

    jobs = [job(0, 30, None), *(job(key, 4, each) for key, each in enumerate(adapters, start=1))]
    expected = run(engine_on(one_layer, "cpu"), jobs)
    engine = engine_on(one_layer, "cuda")
    tokens: dict[int, list[int]] = {each.key: [] for each in jobs}

    def step() -> None:
        gpu.reset()
        for output in engine.step():
            tokens[output.key] += output.ids
        assert len(gpu.reads) <= 1

    engine.submit(jobs[0])
    step()
    for each in jobs[1:]:
        engine.submit(each)
        loads, others = engine.stats().adapter_loads, len(tokens[0])
        for _ in range(3):
            step()
            assert not gpu.late
        assert engine.stats().adapter_loads == loads + 1
        assert (len(tokens[0]), tokens[each.key]) == (others + 3, [])
        gpu.streams[0].run()
        while len(tokens[each.key]) < each.sampling.longest:
            step()
    while engine.has_work:
        step()
    assert tokens == expected
    assert gpu.streams[0].waited == len(adapters)


def test_an_adapter_of_the_output_keeps_only_its_own_rows_from_replays(
    one_layer: Backbone, gpu: FakeGpu
) -> None:
    """Others' steps are replayed while it is in a slot; its memory was there from the start."""
    shapes = one_layer.linear_shapes
    with_output = random_adapter(shapes, "out", rank=2, targets=tuple(shapes))
    plain = random_adapter(shapes, "in", rank=3)
    engine = engine_on(one_layer, "cuda", "auto")
    (output,) = (group for group in engine.layers.groups if group.names == ("lm_head",))
    place = output.weights
    assert place is not None

    def job(key: int, tokens: int, adapter: AdapterWeights) -> GenerationRequest:
        sampling = Sampling(max_tokens=tokens, temperature=0.0, ignore_eos=True)
        return GenerationRequest(
            key=key, prompt_ids=(5, key), sampling=sampling, seed=0, adapter=adapter
        )

    jobs = [job(0, 4, with_output), job(1, 9, plain)]
    before, replays = count_replays(gpu), []
    assert run(engine, jobs, lambda: replays.append(count_replays(gpu) - before)) == run(
        engine_on(one_layer, "cpu"), jobs
    )
    gpu.streams[0].run()
    assert replays[3] == 0  # the first one's answer has four tokens
    assert replays[-1] >= 5
    assert output.weights is place


@pytest.mark.usefixtures("gpu")
def test_nobody_spins_where_nobody_else_could_run(one_layer: Backbone) -> None:
    """The step is planned, and the device waits for the adapter."""
    adapter = random_adapter(one_layer.linear_shapes, "a", rank=4)
    job = replace(jobs_of(one_layer, 1)[0], adapter=adapter, active_from=0, adapter_scale=1.0)
    engine = engine_on(one_layer, "cuda")
    engine.submit(job)
    assert engine.stats().steps == 0
    while engine.has_work:
        steps = engine.stats().steps
        engine.step()
        assert engine.stats().steps == steps + 1
    assert run(engine_on(one_layer, "cuda"), [job]) == run(engine_on(one_layer, "cpu"), [job])
