"""What the start finds out about a model, and what it makes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from structlog.testing import capture_logs
from transformers.models.llama import modeling_llama

from aril.kernels.sgmv import make_plan
from aril.worker.engine.attention import LayoutRecorder
from aril.worker.engine.config import EngineConfig
from aril.worker.engine.groups import LinearGroup
from aril.worker.engine.probe import install_adapters
from tests.support.weights import random_adapter

if TYPE_CHECKING:
    from torch import Tensor

    from aril.worker.engine.model import Backbone

CONFIG = EngineConfig(
    max_rows=4, max_step_tokens=32, slots=3, max_rank=8, kv_tokens=64, backend="torch"
)


def test_models_that_cannot_use_slices_get_separate_linears(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A view that a slice of a fused output does not allow costs the fusion, not the start."""

    def forward(self: Any, x: Tensor) -> Tensor:
        gate, up = self.gate_proj(x).view(-1), self.up_proj(x).view(-1)
        return self.down_proj((self.act_fn(gate) * up).view(*x.shape[:-1], -1))

    monkeypatch.setattr(modeling_llama.LlamaMLP, "forward", forward)
    with capture_logs() as logged:
        layers = install_adapters(backbone, CONFIG)
    assert all(len(group.names) == 1 for group in layers.groups)
    (line,) = logged
    assert (line["event"], line["model"]) == ("linears_not_fused", "llama")
    assert line["reason"].startswith("view size is not compatible")
    layers.load(0, random_adapter(backbone.linear_shapes, "a", targets=("gate_proj",)))
    plan = make_plan(torch.zeros(6, dtype=torch.int32), slots=CONFIG.slots)
    layers.begin((plan,), (plan,))
    places = torch.arange(6)
    assert backbone.forward(places, places, places, LayoutRecorder()).isfinite().all()


def test_models_that_slices_change_get_separate_linears(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that looks at the memory behind an output is served right, and the log says why."""

    def forward(self: Any, x: Tensor) -> Tensor:
        gate = self.gate_proj(x)
        flat = gate.as_strided(gate.shape, (gate.shape[1] * gate.shape[2], gate.shape[2], 1))
        return self.down_proj(self.act_fn(flat) * self.up_proj(x))

    monkeypatch.setattr(modeling_llama.LlamaMLP, "forward", forward)
    with capture_logs() as logged:
        layers = install_adapters(backbone, CONFIG)
    assert all(len(group.names) == 1 for group in layers.groups)
    (line,) = logged
    assert "logits of packed rows differ" in line["reason"]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("out of memory"), RuntimeError("cuBLAS")])
def test_other_failures_are_no_reason_to_go_on(
    error: RuntimeError, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory that runs out and a kernel that fails end the start as what they are."""

    def fail(_group: LinearGroup, _x: Tensor) -> Tensor:
        raise error

    monkeypatch.setattr(LinearGroup, "first", fail)
    with pytest.raises(type(error), match=str(error)):
        install_adapters(backbone, CONFIG)
