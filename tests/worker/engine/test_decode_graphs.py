"""Recorded decode steps give what eager ones give; on a GPU as CUDA graphs.

Without one the recorder runs the step again over the tensors that keep their place, in Triton's
interpreter: whatever a replay reads must be in them.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch

from aril.schemas import Sampling
from aril.worker.engine import decode_graphs
from aril.worker.engine.config import EngineConfig
from aril.worker.engine.decode_graphs import CudaRecorder, Shape, shapes_of
from aril.worker.engine.engine import Engine
from aril.worker.engine.forward_pass import AttentionLayout
from aril.worker.engine.kv_cache import KVCache
from aril.worker.engine.mixture import mix
from aril.worker.engine.model import adopt_backbone, load_backbone
from aril.worker.engine.packing import PackedRow, StepBlocks
from aril.worker.engine.request import GenerationRequest
from aril.worker.engine.row_adapters import NOTHING
from tests.support.launches import LaunchCounter
from tests.support.tiny import make_tiny_model
from tests.support.weights import random_adapter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aril.worker.adapters import AdapterWeights
    from aril.worker.engine.mixture import Mixture
    from aril.worker.engine.model import Backbone

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CONFIG = EngineConfig(
    max_rows=4, max_step_tokens=32, slots=2, max_rank=4, kv_tokens=96, kv_block=4,
    device=DEVICE, backend="triton",
)  # fmt: skip


class Rerun:
    """A recorder that runs the step again; counts what was recorded and what was replayed."""

    def __init__(self) -> None:
        self.recorded = 0
        self.replays: list[int] = []  # which recording, in order

    def __call__(self, step: Callable[[], None]) -> Callable[[], None]:
        """Record by CUDA where it is there."""
        number = self.recorded
        self.recorded += 1
        again = CudaRecorder(torch.device(DEVICE))(step) if DEVICE == "cuda" else step

        def replay() -> None:
            self.replays.append(number)
            again()

        return replay


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """One tiny Llama of one layer, on the CPU."""
    path = make_tiny_model(tmp_path_factory.mktemp("model"), "llama", num_hidden_layers=1)
    return load_backbone(path, "cpu", torch.float32)


def engine(backbone: Backbone, record: Rerun | None = None) -> Engine:
    """Make an engine over a copy of the backbone."""
    own = adopt_backbone(
        copy.deepcopy(backbone.model), backbone.tokenizer, DEVICE, name=backbone.name
    )
    return Engine(own, CONFIG, record=record)


def job(
    key: int, prompt: int, tokens: int, weights: AdapterWeights | Mixture | None
) -> GenerationRequest:
    """Ask for so many tokens behind a prompt of so many."""
    return GenerationRequest(
        key=key,
        prompt_ids=tuple((29 * at + 7 * key + 3) % 384 for at in range(prompt)),
        sampling=Sampling(max_tokens=tokens, temperature=0.0, ignore_eos=True),
        seed=key,
        adapter=weights,
    )


def answers(engine: Engine, jobs: Sequence[GenerationRequest]) -> dict[int, list[int]]:
    """Run the jobs, the later ones joining while others decode."""
    tokens: dict[int, list[int]] = {each.key: [] for each in jobs}
    waiting = list(jobs)
    while waiting or engine.has_work:
        stats = engine.stats()
        if waiting and stats.running + stats.waiting < CONFIG.max_rows:
            engine.submit(waiting.pop(0))
        for output in engine.step():
            assert output.error is None
            tokens[output.key] += output.ids
    return tokens


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let tables widen within a few tokens."""
    monkeypatch.setattr(decode_graphs, "NARROWEST", 8)
    monkeypatch.setattr(decode_graphs, "WIDER", 2)


def test_static_rows_know_how_long_their_sequences_are() -> None:
    """What longrope goes by is in a tensor that keeps its place; rows that fill up are short."""
    layout = AttentionLayout(layer=0, heads=1, kv_heads=1, head_dim=4, scale=1.0, window=None)
    cache = KVCache(
        [layout], blocks=12, block_size=4, dtype=torch.float32, device=torch.device("cpu")
    )
    static = decode_graphs.StaticRows(Shape(rows=3, blocks=8, adapters=False), cache, CONFIG)
    place = static.lengths
    rows = [PackedRow([5], 31, list(range(8))), PackedRow([6], 8, [8, 9, 10])]
    fresh, filled = static.put(rows, [NOTHING] * 2, StepBlocks.of(rows, 4))
    assert place.tolist() == [32, 9, 1]
    assert (fresh.tolist(), filled.tolist()) == ([10], [7])
    assert place is static.lengths


@pytest.mark.usefixtures("narrow")
def test_replays_give_the_eager_tokens(backbone: Backbone) -> None:
    """Rows join and leave, slots are refilled with other ranks, sequences outgrow their tables."""
    linears = backbone.linear_shapes
    weights = [random_adapter(linears, f"a{rank}", rank=rank) for rank in (4, 1, 3)]
    jobs = [
        replace(job(0, 5, 6, weights[0]), adapter_scale=0.4),
        job(1, 2, 3, None),
        replace(job(2, 11, 3, weights[1]), active_from=8),
        job(3, 3, 5, weights[2]),  # takes the slot of one that is done
        job(4, 1, 9, None),  # alone in the end
        job(5, 1, 2, mix((weights[0], weights[2]), (0.5, -1.0))),  # eagerly
    ]
    recorder = Rerun()
    recorded = engine(backbone, recorder)
    assert answers(recorded, jobs) == answers(engine(backbone), jobs)
    shapes = shapes_of(CONFIG, backbone.max_positions)
    assert recorder.recorded == len(shapes)
    used = [shapes[number] for number in recorder.replays]
    assert {shape.rows for shape in used} == {1, 2, 4}  # three rows are four
    assert {shape.adapters for shape in used} == {False, True}
    assert len({shape.blocks for shape in used}) > 1
    assert recorded.stats().adapter_loads == 3


def test_an_adapter_of_the_output_is_served_eagerly(backbone: Backbone) -> None:
    """Its memory is not in any recording, so no replay may serve a row that has it."""
    with_output = random_adapter(
        backbone.linear_shapes, "out", rank=2, targets=tuple(backbone.linear_shapes)
    )
    jobs = [job(0, 3, 3, with_output), job(1, 2, 5, None)]
    recorder = Rerun()
    assert answers(engine(backbone, recorder), jobs) == answers(engine(backbone), jobs)
    shapes = shapes_of(CONFIG, backbone.max_positions)
    assert recorder.replays  # the backbone's row, once it is alone
    assert not any(shapes[number].adapters for number in recorder.replays)


def test_every_decode_step_has_a_shape() -> None:
    """Rows double up to the most, widths grow to the longest sequence; the smallest come first."""
    shapes = shapes_of(CONFIG, 40)
    assert shapes[0] == Shape(1, 10, adapters=False)
    assert {shape.rows for shape in shapes} == {1, 2, 4}
    assert {shape.blocks for shape in shapes} == {10}
    wide = shapes_of(
        EngineConfig(max_rows=64, max_step_tokens=64, slots=1, max_rank=1, kv_tokens=1 << 20),
        20_000,
    )
    assert sorted({shape.rows for shape in wide}) == [1, 2, 4, 8, 16, 32, 64]
    assert sorted({shape.blocks for shape in wide}) == [64, 256, 1024, 1250]
    assert list(wide) == sorted(wide)


# Operators that on a GPU wait for the device, or copy from the host.
WAITS = ("_local_scalar_dense", "nonzero", "lift_fresh", "masked_select", "_unique2")


def waits(counter: LaunchCounter) -> list[str]:
    """Name the operators seen that no capture survives."""
    return [name for name in WAITS if counter.calls[f"aten::{name}"]]


def test_a_recorded_step_waits_for_nothing(backbone: Backbone) -> None:
    """No operator of the step asks the device for a value, or brings one from the host."""
    watched: list[list[str]] = []

    def record(step: Callable[[], None]) -> Callable[[], None]:
        step()  # what is built once is built now
        with LaunchCounter() as counter:
            step()
        watched.append(waits(counter))
        return step

    own = adopt_backbone(copy.deepcopy(backbone.model), backbone.tokenizer, DEVICE, name="tiny")
    Engine(own, CONFIG, record=record)
    assert watched
    assert not any(watched), watched


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("_local_scalar_dense", lambda x: x.sum().item()),
        ("nonzero", torch.nonzero),
        ("lift_fresh", lambda x: x + torch.tensor(1.0)),
        ("masked_select", lambda x: x.masked_select(x > 0)),
        ("_unique2", torch.unique),
    ],
)
def test_the_watch_sees_what_waits(name: str, step: Callable[[torch.Tensor], object]) -> None:
    """Reading a value, asking for the non-zero, making a tensor of a number, and their like."""
    with LaunchCounter() as counter:
        step(torch.arange(3.0))
    assert name in waits(counter)


def test_graphs_need_a_gpu() -> None:
    """A CPU engine that is told to capture is refused."""
    with pytest.raises(ValueError, match="graphs need a CUDA device, got cpu"):
        EngineConfig(max_rows=1, max_step_tokens=1, slots=1, max_rank=1, kv_tokens=16, graphs="on")
