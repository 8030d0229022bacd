"""Looks at a model folder without loading its weights: what it is, and whether it is whole."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a folder is meant, never a download

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from worker.adapters.base_names import folder_name

WEIGHTS: Final = "model.safetensors"
INDEX: Final = "model.safetensors.index.json"


class ModelFolderError(Exception):
    """The folder cannot be loaded; the message is one line."""


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """What a folder promises."""

    name: str
    kind: str
    parameters: int
    linear_shapes: dict[str, tuple[int, int]]  # module path -> (out, in)
    has_chat_template: bool


def read_model_folder(folder: str, name: str | None = None) -> ModelFolder:
    """Build the model of a folder without memory for its weights. Raises `ModelFolderError`.

    `name` is what the operator calls it, by default what a worker would.
    """
    path = Path(folder)
    if not (path / "config.json").is_file():
        raise ModelFolderError(f"{folder}: no config.json there")
    _check_weights(path)
    try:
        config = AutoConfig.from_pretrained(path, local_files_only=True)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise ModelFolderError(f"{folder}: {str(error).strip().splitlines()[0]}") from error
    return ModelFolder(
        name=name or folder_name(path),
        kind=config.model_type,
        parameters=model.num_parameters(),
        linear_shapes={
            name: (module.out_features, module.in_features)
            for name, module in model.named_modules()
            if type(module) is torch.nn.Linear
        },
        has_chat_template=bool(tokenizer.chat_template),
    )


def _check_weights(path: Path) -> None:
    if (path / WEIGHTS).is_file():
        return
    try:
        parts = set(json.loads((path / INDEX).read_text())["weight_map"].values())
    except (OSError, ValueError, KeyError):
        raise ModelFolderError(f"{path}: no {WEIGHTS} there") from None
    if missing := sorted(part for part in parts if not (path / part).is_file()):
        raise ModelFolderError(f"{path}: {missing[0]} is missing, and {len(missing) - 1} more")
