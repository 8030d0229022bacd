"""Adapter folders written by hand, for a backbone of four linears; no model is built."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from aril.worker.adapters.target_parameters import ExpertShape

SHAPES = {
    "model.layers.0.self_attn.q_proj": (6, 4),
    "model.layers.0.self_attn.v_proj": (2, 4),
    "model.layers.1.self_attn.q_proj": (6, 4),
    "model.layers.1.self_attn.v_proj": (2, 4),
}
EXPERTS = {
    "model.layers.0.mlp.experts.up_proj": ExpertShape(experts=2, outputs=6, inputs=4),
    "model.layers.0.mlp.experts.down_proj": ExpertShape(experts=2, outputs=4, inputs=4),
}
RANK = 3
CONFIG_FILE = "adapter_config.json"
TENSORS_FILE = "adapter_model.safetensors"


def tensors(value: float = 0.5) -> dict[str, torch.Tensor]:
    """Return A and B of every linear, by PEFT's names, filled with `value`."""
    made = {}
    for module, (rows, columns) in SHAPES.items():
        made[key(module, "A")] = torch.full((RANK, columns), value)
        made[key(module, "B")] = torch.full((rows, RANK), value)
    return made


def expert_tensors(*, before: bool = False) -> dict[str, torch.Tensor]:
    """Return A and B of both experts' weights as PEFT nests them; `before` as it did up to 0.18."""
    made = {}
    nesting = {"up_proj": ".base_layer", "down_proj": ""}
    for path, shape in EXPERTS.items():
        module, _, name = path.rpartition(".")
        wide, ends = shape.experts * RANK, (shape.inputs, shape.outputs)
        inputs, outputs = reversed(ends) if before else ends
        made[key(f"{module}{nesting[name]}", "A")] = torch.rand(wide, inputs)
        made[key(f"{module}{nesting[name]}", "B")] = torch.rand(outputs, wide)
    return made


def key(module: str, half: str) -> str:
    """Return PEFT's name of a tensor."""
    return f"base_model.model.{module}.lora_{half}.weight"


def fields(**changes: Any) -> dict[str, Any]:
    """Return a configuration that goes with `tensors`, with the changes given."""
    plain = {
        "peft_type": "LORA",
        "base_model_name_or_path": "acme/tiny",
        "r": RANK,
        "lora_alpha": 6,
        "target_modules": ["q_proj", "v_proj"],
        "bias": "none",
    }
    return plain | changes


def write_adapter(
    folder: Path, weights: Mapping[str, torch.Tensor] | None = None, **changes: Any
) -> Path:
    """Write a good adapter into `folder`, or one with other weights or fields, and return it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / CONFIG_FILE).write_text(json.dumps(fields(**changes)))
    save_file(dict(tensors() if weights is None else weights), folder / TENSORS_FILE)
    return folder
