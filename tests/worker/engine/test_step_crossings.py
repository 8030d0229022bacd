"""What a step does between host and device: it tells it twice, and waits for it once.

Without a GPU: on a device that is none (tests/support/fake_gpu.py) an engine runs whole, and what
crosses is counted. Tokens must be those that it gives on the host.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from aril.schemas import Sampling
from aril.worker.engine.model import load_backbone
from aril.worker.engine.request import GenerationRequest
from tests.support.gpu_engines import count_replays, engine_on, jobs_of, run
from tests.support.tiny import make_tiny_model

if TYPE_CHECKING:
    from pathlib import Path

    from aril.worker.engine.config import Graphs
    from aril.worker.engine.model import Backbone
    from tests.support.fake_gpu import FakeGpu
    from tests.support.tiny import Architecture


@pytest.mark.parametrize("graphs", ["off", "auto"])
@pytest.mark.parametrize("seed", [1, 3])
def test_a_step_tells_the_device_twice_and_waits_once(
    one_layer: Backbone, gpu: FakeGpu, graphs: Graphs, seed: int
) -> None:
    """Its numbers and the sampler's, both pinned; and the tokens with all that it wants to know."""
    jobs = jobs_of(one_layer, seed)
    expected = run(engine_on(one_layer, "cpu"), jobs)
    engine = engine_on(one_layer, "cuda", graphs)
    loads, steps = 0, []
    replays = count_replays(gpu)

    def count() -> None:
        nonlocal loads
        # An adapter is one copy, and one for the numbers of all its linears.
        of_loads = 2 * (engine.stats().adapter_loads - loads)
        loads = engine.stats().adapter_loads
        steps.append((len(gpu.told) - of_loads, gpu.late, len(gpu.reads)))
        gpu.reset()
        gpu.streams[0].run()

    gpu.reset()
    assert run(engine, jobs, count) == expected
    assert loads
    assert len(steps) > 5
    assert all(told <= 2 and not late and read <= 1 for told, late, read in steps), steps
    assert sum(read for _, _, read in steps) > 5
    assert (count_replays(gpu) > replays) == (graphs == "auto")
    assert engine.stats().kv_blocks_named > 0  # what was read with the tokens says so


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["qwen2", "qwen3", "gemma", "gemma2", "gpt2"])
def test_no_kind_of_backbone_asks_for_more(
    tmp_path: Path, gpu: FakeGpu, kind: Architecture
) -> None:
    """What transformers does in a forward pass crosses nowhere, and can be recorded."""
    path = make_tiny_model(tmp_path, kind, num_hidden_layers=2)
    other = load_backbone(path, "cpu", torch.float32)
    jobs = jobs_of(other, 2)
    expected = run(engine_on(other, "cpu"), jobs)
    engine = engine_on(other, "cuda", "auto")
    replays = count_replays(gpu)
    crossed = []

    def count() -> None:
        crossed.append((gpu.late, len(gpu.reads)))
        gpu.reset()

    gpu.reset()
    assert run(engine, jobs, count) == expected
    assert all(not late and reads <= 1 for late, reads in crossed), crossed
    assert count_replays(gpu) > replays


def test_any_gpu_will_do(
    one_layer: Backbone, gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing lands on the thread's current device where the engine's is another."""
    monkeypatch.setattr(torch.cuda, "set_device", lambda _device: None)
    jobs = jobs_of(one_layer, 1)
    engine = engine_on(one_layer, "cuda:1", "auto")
    assert run(engine, jobs) == run(engine_on(one_layer, "cpu"), jobs)
    assert gpu.current == 0
    assert gpu.graphs
    assert {each.device for each in engine._cache.k.values()} == {torch.device("cuda:1")}
    with pytest.raises(RuntimeError, match="on two GPUs"):
        torch.ones(2, device="cuda:1") + torch.ones(2, device="cuda")


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("top", [0, 3])
def test_a_prompt_that_is_told_of_is_read_when_it_is_whole(
    one_layer: Backbone, gpu: FakeGpu, top: int
) -> None:
    """Its pieces are told what comes next in pinned copies, and stay on the device until then."""
    sampling = Sampling(max_tokens=3, temperature=0.0, prompt_logprobs=top, ignore_eos=True)
    prompt = tuple((29 * at + 5) % 384 for at in range(30))  # of several steps
    job = GenerationRequest(key=0, prompt_ids=prompt, sampling=sampling, seed=0, adapter=None)
    told = {}
    for device in ("cpu", "cuda"):
        engine = engine_on(one_layer, device)
        engine.submit(job)
        reads = []
        while engine.has_work:
            gpu.reset()
            for output in engine.step():
                if output.prompt_logprobs is not None:
                    told[device] = output.prompt_logprobs
            assert not gpu.late
            assert len(gpu.told) <= 4
            reads.append(len(gpu.reads))
        assert device == "cpu" or sorted(reads)[-2:] == [1, 2]
    assert len(told["cuda"]) == len(prompt)
    for one, other in zip(told["cuda"][1:], told["cpu"][1:], strict=True):
        assert one is not None
        assert other is not None
        assert one.chosen == pytest.approx(other.chosen, abs=1e-4)
        assert [token for token, _ in one.top] == [token for token, _ in other.top]
