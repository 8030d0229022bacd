"""Which linears are found to read the same input, and which are left alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from transformers.models.llama import modeling_llama

from aril.schemas import ErrorCode, JobError
from aril.worker.adapters import AdapterStore
from aril.worker.engine.config import EngineConfig
from aril.worker.engine.lora import AdapterLayers
from aril.worker.engine.model import Backbone, load_backbone
from aril.worker.engine.siblings import find_siblings
from tests.support.tiny import Architecture, make_tiny_adapter, make_tiny_model
from tests.support.weights import random_adapter

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

ATTENTION_IN = ("q_proj", "k_proj", "v_proj")
CONFIG = EngineConfig(
    max_rows=4, max_step_tokens=32, slots=3, max_rank=8, kv_tokens=64, backend="torch"
)


@pytest.mark.parametrize("arch", ["llama", "qwen3", "gemma"])
def test_siblings_are_found(arch: Architecture, tmp_path: Path) -> None:
    """q, k, v read one tensor, gate and up another; o, down and the output module are alone."""
    backbone = load_backbone(make_tiny_model(tmp_path, arch), "cpu", torch.float32)
    endings = [
        tuple(name.rpartition(".")[2] for name in group) for group in find_siblings(backbone)
    ]
    layer = [ATTENTION_IN, ("o_proj",), ("gate_proj", "up_proj"), ("down_proj",)]
    assert endings == [*layer, *layer, ("lm_head",)]


def test_inputs_changed_in_place_are_not_shared(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Linears that get one tensor before and after a change in place stay apart."""

    def forward(self: Any, x: Tensor) -> Tensor:
        gate = self.gate_proj(x)
        x.add_(1.0)
        return self.down_proj(gate * self.up_proj(x))

    monkeypatch.setattr(modeling_llama.LlamaMLP, "forward", forward)
    groups = find_siblings(backbone)
    assert ("model.layers.0.mlp.gate_proj",) in groups
    assert ("model.layers.0.mlp.up_proj",) in groups


def test_linears_that_see_some_rows_take_no_adapter(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where a linear runs on a part of the rows, as in a mixture of experts, it is left alone.

    Adapters that change it are refused when their folder is read.
    """

    def forward(self: Any, x: Tensor) -> Tensor:
        up = torch.cat((self.up_proj(x[:, :3]), self.gate_proj(x[:, 3:])), dim=1)
        return self.down_proj(up)

    monkeypatch.setattr(modeling_llama.LlamaMLP, "forward", forward)
    found = {name for group in find_siblings(backbone) for name in group}
    assert "model.layers.0.mlp.down_proj" in found
    assert not any(name.endswith(("gate_proj", "up_proj")) for name in found)
    layers = AdapterLayers(backbone, CONFIG)
    assert not any(name.endswith(("gate_proj", "up_proj")) for name in layers.shapes)
    with pytest.raises(ValueError, match=r"no linear 'model\.layers\.0\.mlp\.up_proj'"):
        layers.prepare(random_adapter(backbone.linear_shapes, "a", targets=("up_proj",)))
    root = tmp_path / "store"
    make_tiny_adapter(root / "shared" / "a", tmp_path, targets=("up_proj",))
    store = AdapterStore(root, base_model=None, linear_shapes=layers.shapes, max_rank=8)
    with pytest.raises(JobError, match=r"mlp\.up_proj.*no such linear layer") as caught:
        store.load(store.find("acme", "a"))
    assert caught.value.code == ErrorCode.ADAPTER_INVALID
