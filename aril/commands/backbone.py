"""Looks at a model folder without loading its weights: what it is, and whether it is whole."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a folder is meant, never a download

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from worker.adapters.base_names import folder_name
from worker.adapters.own_weights import INDEX, WEIGHTS, OwnWeights
from worker.engine.model import linear_shapes, use_plain_linears


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
    own_weights: OwnWeights


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
        own = OwnWeights.of(path, model)
        use_plain_linears(model)
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise ModelFolderError(f"{folder}: {str(error).strip().splitlines()[0]}") from error
    return ModelFolder(
        name=name or folder_name(path),
        kind=config.model_type,
        parameters=model.num_parameters(),
        linear_shapes=linear_shapes(model),
        has_chat_template=bool(tokenizer.chat_template),
        own_weights=own,
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
