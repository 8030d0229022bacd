"""How much a backbone's next tokens change with weights in eight bits, on a text of ours."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from aril.worker.engine.attention import UnsupportedModelError
from aril.worker.engine.config import EngineConfig
from aril.worker.engine.model import load_backbone
from aril.worker.engine.probe import install_adapters
from aril.worker.engine.sample_texts import HELD_OUT
from aril.worker.loading import ModelError, device_and_type

if TYPE_CHECKING:
    from torch import Tensor

    from aril.worker.settings import WorkerSettings


@dataclass(frozen=True, slots=True)
class Change:
    """What separates the two, over the text's tokens."""

    divergence: float  # KL from the stored weights' probabilities, nats a token
    same_best: float  # share of tokens after which the most likely one is the same
    tokens: int

    def __str__(self) -> str:
        return (
            f"int8 changes the next token by {self.divergence:.2g} nats (KL to the stored"
            f" weights), the likeliest is the same after {self.same_best:.0%} of"
            f" {self.tokens} tokens"
        )


def measure(settings: WorkerSettings) -> Change:
    """Load the backbone as a worker does and compute a text with either weights.

    The text is not the one that smoothing goes by. Raises ModelError.
    """
    device, dtype = device_and_type(settings)
    config = EngineConfig(
        max_rows=1,
        max_step_tokens=16,
        slots=1,
        max_rank=1,
        kv_tokens=16,
        device=device,
        dtype=dtype,
        weights=settings.weights,
    )
    try:
        backbone = load_backbone(Path(settings.model), device, dtype)
        ids = torch.tensor(backbone.tokenizer.encode(HELD_OUT), device=backbone.device)
        stored = backbone.plain_forward(ids)
        install_adapters(backbone, config)
        return compare(stored, backbone.plain_forward(ids))
    except UnsupportedModelError as error:
        raise ModelError(str(error)) from error
    except (OSError, ValueError, MemoryError, RuntimeError) as error:  # of memory, most of all
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"{settings.model}: {first_line}") from error


def compare(stored: Tensor, changed: Tensor) -> Change:
    """Compare logits [T, vocab] of the same tokens."""
    p, q = stored.float().log_softmax(-1), changed.float().log_softmax(-1)
    return Change(
        divergence=float((p.exp() * (p - q)).sum(-1).mean()),
        same_best=float((p.argmax(-1) == q.argmax(-1)).float().mean()),
        tokens=len(p),
    )
