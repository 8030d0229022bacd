"""SmolLM2-135M and the demo's adapters, as the benchmarks of the engine on a CPU load them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from aril.demo.model import MODEL_NAME, ensure_model
from aril.worker.adapters import AdapterStore
from aril.worker.engine.model import load_backbone

if TYPE_CHECKING:
    from aril.worker.adapters import AdapterWeights
    from aril.worker.engine.model import Backbone

DEMO = Path(__file__).parent.parent / "aril" / "demo" / "adapters"
NAMED = (("acme", "terse"), ("blackbeard", "pirate"), ("ledgerly", "extract"))
MAX_RANK = 32


def random_smollm2() -> LlamaForCausalLM:
    """Make a model of SmolLM2-135M's shape with random weights, the same each time."""
    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=49_152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(shape).eval()


def load_smollm2(dtype: torch.dtype = torch.float32) -> Backbone:
    """Load the backbone as a CPU's worker does."""
    return load_backbone(ensure_model(), "cpu", dtype)


def demo_adapters(backbone: Backbone) -> list[AdapterWeights]:
    """Load the demo's three adapters."""
    store = AdapterStore(
        DEMO,
        base_model=MODEL_NAME,
        linear_shapes=backbone.linear_shapes,
        max_rank=MAX_RANK,
    )
    return [store.load(store.find(*each)) for each in NAMED]
