"""What a step does between host and device: it tells it twice, and waits for it once.

Without a GPU: on a device that is none (tests/support/fake_gpu.py) an engine runs whole, and what
crosses is counted. Tokens must be those that it gives on the host.
"""

from __future__ import annotations

import copy
import random
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch

from schemas import Sampling
from tests.support.fake_gpu import FakeGpu, fake_gpu
from tests.support.tiny import make_tiny_model
from tests.support.weights import random_adapter
from worker.adapters.trained_tokens import TokenRows, TrainedTokens
from worker.engine.config import EngineConfig
from worker.engine.engine import Engine
from worker.engine.model import adopt_backbone, load_backbone
from worker.engine.request import GenerationRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from worker.adapters import AdapterWeights
    from worker.engine.config import Graphs
    from worker.engine.model import Backbone

ROWS = 3

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is there")


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """One tiny Llama of one layer, on the CPU."""
    path = make_tiny_model(tmp_path_factory.mktemp("model"), "llama", num_hidden_layers=1)
    return load_backbone(path, "cpu", torch.float32)


@pytest.fixture
def gpu() -> Iterator[FakeGpu]:
    """Turn on a device that is none."""
    with fake_gpu() as found:
        yield found


def engine_on(backbone: Backbone, device: str, graphs: Graphs = "off") -> Engine:
    """Make an engine over a copy of the backbone."""
    own = adopt_backbone(copy.deepcopy(backbone.model), backbone.tokenizer, device, name="tiny")
    config = EngineConfig(
        max_rows=ROWS,
        max_step_tokens=16,
        slots=2,
        max_rank=4,
        kv_tokens=96,
        kv_block=4,
        device=device,
        graphs=graphs,
    )
    return Engine(own, config)


def jobs_of(backbone: Backbone, seed: int) -> list[GenerationRequest]:
    """Draw jobs: some on the backbone, some of an adapter's own strength, some from its middle on.

    Prompts are shorter and longer than a step's room; some begin alike.
    """
    dice = random.Random(seed)
    adapters = [random_adapter(backbone.linear_shapes, f"a{rank}", rank=rank) for rank in (4, 1, 3)]
    begin = [dice.randrange(384) for _ in range(8)]
    jobs = []
    for key in range(6):
        prompt = [*begin, *(dice.randrange(384) for _ in range(dice.choice([1, 3, 20])))]
        prompt = prompt[dice.choice([0, 0, 5]) :]
        adapter = dice.choice([None, *adapters])
        jobs.append(
            GenerationRequest(
                key=key,
                prompt_ids=tuple(prompt),
                sampling=Sampling(
                    max_tokens=dice.randrange(1, 8),
                    temperature=dice.choice([0.0, 1.0]),
                    logprobs=dice.choice([None, 2]),
                    repetition_penalty=dice.choice([1.0, 1.2]),
                    ignore_eos=True,
                ),
                seed=dice.getrandbits(60),
                adapter=adapter,
                adapter_scale=1.0 if adapter is None else dice.choice([1.0, 0.5]),
                active_from=0 if adapter is None else dice.choice([0, len(prompt) - 1]),
            )
        )
    return jobs


def count_replays(gpu: FakeGpu) -> int:
    """Count them over all recordings."""
    return sum(graph.replays for graph in gpu.graphs)


def run(
    engine: Engine, jobs: Sequence[GenerationRequest], after: Callable[[], None] | None = None
) -> dict[int, list[int]]:
    """Run jobs, a few at a time; `after` is called behind each step."""
    tokens: dict[int, list[int]] = {each.key: [] for each in jobs}
    waiting = list(jobs)
    while waiting or engine.has_work:
        if waiting and engine.stats().running + engine.stats().waiting < ROWS:
            engine.submit(waiting.pop(0))
        for output in engine.step():
            assert output.error is None
            tokens[output.key] += output.ids
        if after is not None:
            after()
    return tokens


@pytest.mark.parametrize("graphs", ["off", "auto"])
@pytest.mark.parametrize("seed", [1, 3])
def test_a_step_tells_the_device_twice_and_waits_once(
    backbone: Backbone, gpu: FakeGpu, graphs: Graphs, seed: int
) -> None:
    """Its numbers and the sampler's, both pinned; and the tokens with all that it wants to know."""
    jobs = jobs_of(backbone, seed)
    expected = run(engine_on(backbone, "cpu"), jobs)
    engine = engine_on(backbone, "cuda", graphs)
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


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["qwen2", "qwen3", "gemma", "gemma2", "gpt2"])
def test_no_kind_of_backbone_asks_for_more(tmp_path: Path, gpu: FakeGpu, kind: str) -> None:
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
    backbone: Backbone, gpu: FakeGpu, kind: str
) -> None:
    """Others decode on while it is copied; its rows come when it is there, with its own answer.

    The device's second stream does nothing until it is told to: a row that ran before would have
    other tokens. Slots are taken again by adapters of other ranks.
    """
    adapters = adapters_of(backbone, kind)

    def job(key: int, tokens: int, adapter: AdapterWeights | None) -> GenerationRequest:
        sampling = Sampling(max_tokens=tokens, temperature=0.0, ignore_eos=True)
        return GenerationRequest(
            key=key, prompt_ids=(5, key, 9), sampling=sampling, seed=key, adapter=adapter
        )

    jobs = [job(0, 30, None), *(job(key, 4, each) for key, each in enumerate(adapters, start=1))]
    expected = run(engine_on(backbone, "cpu"), jobs)
    engine = engine_on(backbone, "cuda")
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


def test_any_gpu_will_do(backbone: Backbone, gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing lands on the thread's current device where the engine's is another."""
    monkeypatch.setattr(torch.cuda, "set_device", lambda _device: None)
    jobs = jobs_of(backbone, 1)
    engine = engine_on(backbone, "cuda:1", "auto")
    assert run(engine, jobs) == run(engine_on(backbone, "cpu"), jobs)
    assert gpu.current == 0
    assert gpu.graphs
    assert {each.device for each in engine._cache.k.values()} == {torch.device("cuda:1")}
    with pytest.raises(RuntimeError, match="on two GPUs"):
        torch.ones(2, device="cuda:1") + torch.ones(2, device="cuda")


def test_an_adapter_of_the_output_keeps_only_its_own_rows_from_replays(
    backbone: Backbone, gpu: FakeGpu
) -> None:
    """Others' steps are replayed while it is in a slot; its memory was there from the start."""
    shapes = backbone.linear_shapes
    with_output = random_adapter(shapes, "out", rank=2, targets=tuple(shapes))
    plain = random_adapter(shapes, "in", rank=3)
    engine = engine_on(backbone, "cuda", "auto")
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
        engine_on(backbone, "cpu"), jobs
    )
    gpu.streams[0].run()
    assert replays[3] == 0  # the first one's answer has four tokens
    assert replays[-1] >= 5
    assert output.weights is place


@pytest.mark.usefixtures("gpu")
def test_nobody_spins_where_nobody_else_could_run(backbone: Backbone) -> None:
    """The step is planned, and the device waits for the adapter."""
    adapter = random_adapter(backbone.linear_shapes, "a", rank=4)
    job = replace(jobs_of(backbone, 1)[0], adapter=adapter, active_from=0, adapter_scale=1.0)
    engine = engine_on(backbone, "cuda")
    engine.submit(job)
    assert engine.stats().steps == 0
    while engine.has_work:
        steps = engine.stats().steps
        engine.step()
        assert engine.stats().steps == steps + 1
    assert run(engine_on(backbone, "cuda"), [job]) == run(engine_on(backbone, "cpu"), [job])


@pytest.mark.usefixtures("gpu")
def test_a_capture_keeps_what_python_knew() -> None:
    """What the tests above go by: tensors are read again, numbers and places are not."""
    place, told = torch.zeros(3, device="cuda"), torch.zeros(3, device="cuda")
    number = 2.0
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        made = place * number
        told.copy_(made + 1)
    place.fill_(5.0)
    number = 7.0
    graph.replay()
    assert told.tolist() == [11.0] * 3
    assert made.tolist() == [10.0] * 3
    for waits in (place.tolist, lambda: place.copy_(torch.ones(3))):
        with pytest.raises(RuntimeError, match="capturing"), torch.cuda.graph(graph):
            waits()


def test_the_device_shows_what_would_cross(gpu: FakeGpu) -> None:
    """What the test above goes by: copies out of any memory, waits, and operands on two sides."""
    there = torch.arange(4.0, device="cuda")
    gpu.reset()
    here = torch.ones(3)
    there[:3].copy_(here)
    here.to("cuda")
    there[[1, 2]]
    assert (len(gpu.told), len(gpu.late)) == (3, 3)
    here.pin_memory().to("cuda", non_blocking=True)
    assert (len(gpu.told), len(gpu.late)) == (4, 3)
    assert not gpu.reads
    for read in (
        there.tolist,
        there[0].item,
        lambda: bool(there[1] > 0),
        there.cpu,
        there.nonzero,
        lambda: there[there > 1],
    ):
        read()
    assert len(gpu.reads) == 6
    with pytest.raises(RuntimeError, match="on the host and on a GPU"):
        there[:3] + here
    assert there.tolist() == [1, 1, 1, 3]


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("top", [0, 3])
def test_a_prompt_that_is_told_of_is_read_when_it_is_whole(
    backbone: Backbone, gpu: FakeGpu, top: int
) -> None:
    """Its pieces are told what comes next in pinned copies, and stay on the device until then."""
    sampling = Sampling(max_tokens=3, temperature=0.0, prompt_logprobs=top, ignore_eos=True)
    prompt = tuple((29 * at + 5) % 384 for at in range(30))  # of several steps
    job = GenerationRequest(key=0, prompt_ids=prompt, sampling=sampling, seed=0, adapter=None)
    told = {}
    for device in ("cpu", "cuda"):
        engine = engine_on(backbone, device)
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
