"""What an engine holds of its weights: each once, and nothing of the file they came from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from aril.worker.engine.config import EngineConfig
from aril.worker.engine.engine import Engine
from aril.worker.engine.model import load_backbone
from tests.support.tiny import make_tiny_model


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_weights_file_is_let_go(dtype: torch.dtype, tmp_path: Path) -> None:
    """In the file's own type tensors are a map of it, until they have memory of their own."""
    path = make_tiny_model(tmp_path / "tiny")
    file = path / "model.safetensors"
    kept = {name: each.to(torch.bfloat16) for name, each in load_file(file).items()}
    save_file(kept, file, {"format": "pt"})
    del kept
    maps = Path("/proc/self/maps")
    if not maps.is_file():
        pytest.skip("no list of maps")
    backbone = load_backbone(path, "cpu", dtype)
    assert (str(file) in maps.read_text()) == (dtype is torch.bfloat16)
    config = EngineConfig(
        max_rows=2, max_step_tokens=16, slots=1, max_rank=4, kv_tokens=64, dtype=dtype
    )
    engine = Engine(backbone, config)
    assert str(file) not in maps.read_text()
    assert engine.backbone is backbone
