"""Looks at a model folder without loading its weights: what it is, and whether it is whole."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a folder is meant, never a download

import torch

from aril.worker.adapters.tokenizer_files import BackboneTokenizer
from aril.worker.engine.attention import UnsupportedModelError
from aril.worker.engine.layouts import META
from aril.worker.engine.model import load_backbone

if TYPE_CHECKING:
    from aril.worker.adapters.own_weights import OwnWeights
    from aril.worker.adapters.target_parameters import ParameterShapes


class ModelFolderError(Exception):
    """The folder cannot be loaded; the message is one line."""


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """What a folder promises."""

    name: str
    kind: str
    parameters: int
    linear_shapes: dict[str, tuple[int, int]]  # module path -> (out, in)
    parameter_shapes: ParameterShapes  # experts and routers
    has_chat_template: bool
    tokenizer: BackboneTokenizer
    own_weights: OwnWeights | None


def read_model_folder(folder: str, name: str | None = None) -> ModelFolder:
    """Load a folder as a worker does, without memory for its weights. Raises `ModelFolderError`.

    `name` is what the operator calls it, by default what a worker would.
    """
    path = Path(folder)
    if not (path / "config.json").is_file():
        raise ModelFolderError(f"{folder}: no config.json there")
    try:
        # The one type in which experts can be multiplied on a device that does nothing.
        found = load_backbone(path, META, torch.bfloat16, name=name)
    except UnsupportedModelError as error:
        raise ModelFolderError(f"{folder}: {error}") from error
    return ModelFolder(
        name=found.name,
        kind=found.model.config.model_type,
        parameters=found.model.num_parameters(),
        linear_shapes=found.linear_shapes,
        parameter_shapes=found.parameters,
        has_chat_template=bool(found.tokenizer.chat_template),
        tokenizer=BackboneTokenizer(found.tokenizer, path),
        own_weights=found.own_weights,
    )
