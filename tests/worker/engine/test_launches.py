"""How many kernels a decode step starts on a GPU, layer by layer, with adapters on all linears.

Counted where there is none: an operator of torch that is no view and no allocation is a kernel, and
so is each operator of ours. What is counted is the very step that a CUDA graph records.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from aril.worker.engine import attention
from aril.worker.engine.config import EngineConfig
from aril.worker.engine.decode_graphs import DecodeGraphs
from aril.worker.engine.kv_cache import KVCache
from aril.worker.engine.layer_kernels import lead_layers
from aril.worker.engine.lora import AdapterLayers
from aril.worker.engine.model import adopt_backbone
from tests.support.backbone_configs import VOCABULARY
from tests.support.backbones import make_tiny_backbone
from tests.support.device import DEVICE
from tests.support.launches import LaunchCounter
from tests.support.tiny import make_tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable

# Tables of more than one split, so that attention is two launches.
CONFIG = EngineConfig(
    max_rows=1, max_step_tokens=16, slots=2, max_rank=4, kv_tokens=1024, backend="triton"
)
LAYERS = 2


def counted(kind: str, dtype: torch.dtype, lead: Callable[[Any], object]) -> dict[bool, list[int]]:
    """Record a model's decode steps; return each layer's launches with adapters and without."""
    model = make_tiny_backbone(kind, num_hidden_layers=LAYERS, max_position_embeddings=1024)
    backbone = adopt_backbone(model.to(dtype), make_tokenizer(VOCABULARY), str(DEVICE), name=kind)
    layers = AdapterLayers(backbone, CONFIG)
    lead(backbone.model)
    found: dict[bool, list[int]] = {}

    def record(step: Callable[[], None]) -> Callable[[], None]:
        step()  # what is built once is built now
        marks: list[int] = []
        with LaunchCounter() as counter:
            hooks = [
                hook
                for layer in backbone.model.model.layers
                for hook in (
                    layer.register_forward_pre_hook(lambda *_: marks.append(counter.total)),
                    layer.register_forward_hook(lambda *_: marks.append(counter.total)),
                )
            ]
            step()
        for hook in hooks:
            hook.remove()
        starts, ends = marks[::2], marks[1::2]
        adapters = bool(counter.ours.get("sgmv_shrink"))
        found[adapters] = [end - start for start, end in zip(starts, ends, strict=True)]
        return step

    DecodeGraphs(backbone, layers, KVCache.of(backbone, CONFIG), CONFIG, record)
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_launches_of_a_layer(kind: str, dtype: torch.dtype) -> None:
    """Eighteen with adapters on all linears; the last layer adds what it has to its input too.

    Two norms, four products with two of LoRA each, heads, attention, its splits, and a gate.
    """
    launches = counted(kind, dtype, lambda model: lead_layers(model, "triton"))
    assert launches == {True: [18, 18 + 1], False: [10, 10 + 1]}


def test_layers_that_are_not_led_start_fewer_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Norms, rotation and gate by our kernels in transformers' own layer: half of what torch's."""
    ours = counted("llama", torch.bfloat16, lambda _: None)
    assert ours == {True: [22] * LAYERS, False: [14] * LAYERS}
    monkeypatch.setattr(attention, "fused_kernels", lambda *_: None)
    torchs = counted("llama", torch.bfloat16, lambda _: None)
    print(f"by torch {torchs}")  # 45 and 37, by transformers 5.23
    for adapters in (True, False):
        assert min(torchs[adapters]) >= 2 * max(ours[adapters])
