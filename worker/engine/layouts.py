"""What each attention layer of a model stores: seen in one short forward, not by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from aril.worker.engine.attention import LayoutRecorder, UnsupportedModelError
from aril.worker.engine.forward_pass import attending

if TYPE_CHECKING:
    from aril.worker.engine.forward_pass import AttentionLayout

META = "meta"  # the device of a model that is looked at and not run


def record_layouts(model: Any, config: Any) -> tuple[AttentionLayout, ...]:
    """Run a model once, under a recorder. Raises UnsupportedModelError.

    Nothing on the device "meta" where the model reads its own numbers to go on.
    """
    recorder = LayoutRecorder()
    ids = torch.zeros((1, 3), dtype=torch.int64, device=model.device)
    # An index, as in a step: at a mere number Gemma 4 leaves out rows in its upper layers.
    last = torch.tensor([2], device=model.device)
    try:
        with torch.inference_mode(), attending(recorder):
            model(input_ids=ids, use_cache=False, logits_to_keep=last)
    except (UnsupportedModelError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        if model.device.type == META and isinstance(error, RuntimeError):
            return ()  # experts that look at what they are given, for one
        raise UnsupportedModelError(
            f"{config.model_type}: {_failed_in(error)} cannot run on packed rows"
        ) from error
    layouts = tuple(recorder.layouts[layer] for layer in sorted(recorder.layouts))
    if len(layouts) != config.num_hidden_layers:
        raise UnsupportedModelError(
            f"{config.model_type}: {len(layouts)} of {config.num_hidden_layers} layers attend to "
            "the text itself; other layers cannot run on packed rows"
        )
    for layout, kind in zip(layouts, getattr(config, "layer_types", None) or (), strict=False):
        if kind == "sliding_attention" and layout.window is None:
            raise UnsupportedModelError(
                f"{config.model_type}: layer {layout.layer} does not pass its sliding window on"
            )
    return layouts


def _failed_in(error: Exception) -> str:
    """Say which part of a model raised: the innermost module's class and method."""
    place, trace = "the model", error.__traceback__
    while trace is not None:
        owner = trace.tb_frame.f_locals.get("self")
        by = trace.tb_frame.f_globals.get("__name__", "")
        if isinstance(owner, nn.Module) and by.startswith("transformers."):
            place = f"{type(owner).__name__}.{trace.tb_frame.f_code.co_name}"
        trace = trace.tb_next
    return place
