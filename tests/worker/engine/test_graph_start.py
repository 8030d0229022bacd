"""Recordings are used where they are shown to give what eager steps give, and nowhere else.

On a device that is none (tests/support/fake_gpu.py), with a recorder that runs steps again.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from aril.schemas import Sampling
from aril.worker.engine.attention import UnsupportedModelError
from aril.worker.engine.config import EngineConfig, Graphs
from aril.worker.engine.decode_graphs import StaticRows
from aril.worker.engine.engine import Engine
from aril.worker.engine.model import adopt_backbone
from aril.worker.engine.request import GenerationRequest
from tests.support.weights import random_adapter

if TYPE_CHECKING:
    from collections.abc import Callable

    from aril.worker.engine.decode_graphs import Recorder
    from aril.worker.engine.model import Backbone

CONFIG = EngineConfig(
    max_rows=3, max_step_tokens=16, slots=2, max_rank=4, kv_tokens=96, kv_block=4, device="cuda"
)

pytestmark = pytest.mark.usefixtures("gpu")


def engine_of(backbone: Backbone, graphs: Graphs, record: Recorder, **more: Any) -> Engine:
    """Make an engine there."""
    own = adopt_backbone(copy.deepcopy(backbone.model), backbone.tokenizer, "cuda", name="tiny")
    return Engine(own, replace(CONFIG, graphs=graphs, **more), record=record)


def again(step: Callable[[], None]) -> Callable[[], None]:
    """Record by running again."""
    step()
    return step


def idle(step: Callable[[], None]) -> Callable[[], None]:
    """Record nothing: a replay leaves what was there."""
    step()
    return lambda: None


def refused(_step: Callable[[], None]) -> Callable[[], None]:
    """Fail as a capture does."""
    raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore of it")


def graphs_of(engine: Engine) -> Any:
    """Return the engine's recordings."""
    return engine._sample._forward._graphs  # type: ignore[attr-defined]


def test_what_is_shown_to_be_right_is_used(one_layer: Backbone) -> None:
    """One line says so; slots and cache are left as if nothing had been."""
    with capture_logs() as logs:
        engine = engine_of(one_layer, "auto", again)
    assert [line["event"] for line in logs] == ["decode_graphs_on"]
    assert logs[0]["recordings"] == graphs_of(engine).recordings
    assert float(logs[0]["difference"]) <= 1e-4
    for tensor in (*engine._cache.k.values(), *engine._cache.v.values()):
        assert not tensor.cpu().any()
    for group in engine.layers.groups:
        weights: Any = group.weights
        assert not weights.ranks.cpu().any()
        assert not weights.a.cpu().any()
    assert engine.stats().adapter_loads == 0


def forgetting(name: str) -> Callable[..., Any]:
    """Return a `StaticRows._lay_out` that puts in a number of each step as it was at first."""
    whole = StaticRows._lay_out

    def lay_out(self: StaticRows, *given: Any) -> Any:
        host, layouts = whole(self, *given)
        first, plans = whole(self, [], [])
        if name == "plan":
            return host, plans
        return host._replace(**{name: getattr(first, name)}), layouts

    return lay_out


@pytest.mark.parametrize(
    "name", ["input_ids", "position_ids", "slot_mapping", "block_table", "kv_lens", "plan"]
)
def test_what_a_replay_would_forget_is_found(
    one_layer: Backbone, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Any of a step's numbers: steps run eagerly, and one line says why."""
    monkeypatch.setattr(StaticRows, "_lay_out", forgetting(name))
    with capture_logs() as logs:
        engine = engine_of(one_layer, "auto", again)
    assert graphs_of(engine) is None
    (line,) = logs
    assert (line["event"], line["log_level"]) == ("decode_graphs_off", "warning")
    assert "replayed decode steps differ" in line["reason"]
    with pytest.raises(UnsupportedModelError, match="differ from eager ones"):
        engine_of(one_layer, "on", again)


@pytest.mark.parametrize(
    ("record", "reason"),
    [(idle, "differ from eager ones"), (refused, "operation not permitted")],
)
def test_a_recorder_that_does_not_work_is_not_used(
    one_layer: Backbone, record: Recorder, reason: str
) -> None:
    """Answers are those of eager steps; who insists is told at start."""
    with capture_logs() as logs:
        engine = engine_of(one_layer, "auto", record)
    assert len(logs) == 1
    assert reason in logs[0]["reason"]
    assert "\n" not in logs[0]["reason"]
    job = GenerationRequest(
        key=0,
        prompt_ids=(3, 4),
        sampling=Sampling(max_tokens=3, temperature=0.0, ignore_eos=True),
        seed=0,
        adapter=random_adapter(one_layer.linear_shapes, "a", rank=2),
    )
    engine.submit(job)
    ids = []
    while engine.has_work:
        ids += [token for output in engine.step() for token in output.ids]
    assert len(ids) == 3
    with pytest.raises(UnsupportedModelError, match=reason):
        engine_of(one_layer, "on", record)


def test_drafts_leave_no_steps_to_record(one_layer: Backbone) -> None:
    """Whoever asks for them gets them; a CPU has nothing to record, and says nothing."""
    with capture_logs() as logs:
        assert graphs_of(engine_of(one_layer, "auto", again, speculation=2)) is None
    assert [line["event"] for line in logs] == ["decode_graphs_off"]
    own = adopt_backbone(copy.deepcopy(one_layer.model), one_layer.tokenizer, "cpu", name="tiny")
    with capture_logs() as logs:
        assert graphs_of(Engine(own, replace(CONFIG, graphs="auto", device="cpu"))) is None
    assert not logs
