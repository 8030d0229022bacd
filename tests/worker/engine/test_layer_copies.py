"""Layers that are copied: the same bits as written down, and only where they are alike."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from aril.schemas import Sampling
from aril.worker.engine.config import EngineConfig
from aril.worker.engine.engine import Engine
from aril.worker.engine.layer_copies import LayerCopies
from aril.worker.engine.model import adopt_backbone
from aril.worker.engine.request import GenerationRequest
from aril.worker.engine.tiled_weight import can_tile
from tests.support.backbone_configs import VOCABULARY
from tests.support.backbones import make_tiny_backbone
from tests.support.tiny import make_tokenizer
from tests.support.weights import random_adapter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aril.worker.adapters import AdapterWeights
    from aril.worker.engine.config import Backend

LAYERS = 6
CONFIG = EngineConfig(
    max_rows=6, max_step_tokens=32, slots=3, max_rank=8, kv_tokens=512, kv_block=4
)


def engine_of(
    kind: str, dtype: torch.dtype, *, backend: Backend = "auto", **changes: Any
) -> Engine:
    """Make an engine of a tiny model, with as many layers as show which are copied."""
    changes = {"num_hidden_layers": LAYERS} | changes
    if kind.startswith("qwen"):
        changes.setdefault("layer_types", ["full_attention"] * LAYERS)
    model = make_tiny_backbone(kind, **changes).to(dtype)
    backbone = adopt_backbone(model, make_tokenizer(VOCABULARY), "cpu", name=kind)
    return Engine(backbone, replace(CONFIG, dtype=dtype, backend=backend))


def answers(engine: Engine, adapters: Sequence[AdapterWeights | None]) -> list[Any]:
    """Answer a job for each adapter, of different lengths, with each token's logprob."""
    how = Sampling(max_tokens=5, temperature=0.0, ignore_eos=True, logprobs=1)
    found: dict[int, list[Any]] = {}
    for key, adapter in enumerate(adapters):
        ids = tuple((7 * key + 3 * at) % 300 for at in range(2 + 9 * key))
        engine.submit(
            GenerationRequest(key=key, prompt_ids=ids, sampling=how, seed=key, adapter=adapter)
        )
    while engine.has_work:
        for output in engine.step():
            found.setdefault(output.key, []).append((output.ids, output.logprobs))
    return [found[key] for key in range(len(adapters))]


@pytest.fixture
def copied(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Note of each layer that was left something whether it was copied."""
    seen: list[bool] = []
    own = LayerCopies.copy

    def noting(self: LayerCopies, *given: Any) -> bool:
        seen.append(own(self, *given))
        return seen[-1]

    monkeypatch.setattr(LayerCopies, "copy", noting)
    return seen


def written_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no layer copied from now on."""
    monkeypatch.setattr(LayerCopies, "copy", lambda *_: False)


def adapters_of(engine: Engine) -> list[AdapterWeights | None]:
    """Make adapters of all linears, of one layer's alone, and of one linear of each layer."""
    shapes = engine.layers.shapes
    some = [
        None,
        random_adapter(shapes, "all", rank=8, targets=("proj",)),
        random_adapter(shapes, "one layer", targets=("3.self_attn.q_proj", "3.mlp.down_proj")),
        random_adapter(shapes, "one kind", rank=2, targets=("o_proj",)),
    ]
    assert all(each is None or each.modules for each in some)
    return [*some, some[1]]


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        *((kind, torch.float32) for kind in ("llama", "qwen2", "qwen3", "phi3", "gemma")),
        *((kind, torch.bfloat16) for kind in ("llama", "qwen2", "qwen3", "gemma")),
    ],
)
def test_copies_compute_the_same(
    kind: str, dtype: torch.dtype, copied: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit, with adapters that layers have alike and that they do not."""
    engine = engine_of(kind, dtype)
    adapters = adapters_of(engine)
    if kind == "phi3":
        adapters = adapters[:1]  # its linears have other names
    ours = [answers(engine, adapters), answers(engine, [None])]
    assert any(copied) == can_tile(torch.zeros(64, 64, dtype=dtype), "auto")
    written_down(monkeypatch)
    again = engine_of(kind, dtype)
    assert [answers(again, adapters), answers(again, [None])] == ours


def test_all_layers_but_two_are_copied(copied: list[bool]) -> None:
    """The first takes nothing over from another one, the second is the pattern."""
    engine = engine_of("llama", torch.float32)
    copied.clear()
    answers(engine, [None])
    alike = can_tile(torch.zeros(64, 64), "auto")
    pattern = [False, False] + [alike] * (LAYERS - 2)
    steps, rest = divmod(len(copied), LAYERS)
    assert (steps > 0, rest) == (True, 0)
    assert copied == pattern * steps


def test_a_layer_with_an_adapter_of_its_own_is_written_down(copied: list[bool]) -> None:
    """And so is the one behind it, as it is like the others again."""
    engine = engine_of("llama", torch.float32)
    (own,) = [each for each in adapters_of(engine) if each and each.name == "one layer"]
    answers(engine, [None])
    copied.clear()
    answers(engine, [own])
    alike = can_tile(torch.zeros(64, 64), "auto")
    assert copied[-LAYERS:] == [False, False, alike, False, False, alike]


@pytest.mark.parametrize("own", [{1}, {0, 3}, {2, 3}, {1, 2, 4}, {5}, {0, 2, 4}])
def test_led_layers_between_others(own: set[int]) -> None:
    """SmolLM3's layers without rotation keep their own forward: all tokens are torch's.

    What they make is let go by the model before the layers behind them are run.
    """
    changes: dict[str, Any] = {
        "no_rope_layers": [int(layer not in own) for layer in range(LAYERS)],
        "layer_types": ["full_attention"] * LAYERS,
    }
    engine = engine_of("smollm3", torch.float32, **changes)
    layers = engine.backbone.model.model.layers
    assert [hasattr(layer, "aril") for layer in layers] == [n not in own for n in range(LAYERS)]
    reference = engine_of("smollm3", torch.float32, backend="torch", **changes)
    jobs: list[AdapterWeights | None] = [None, None, None]
    ours, theirs = (
        [[ids for ids, _ in answer] for answer in answers(each, jobs)]
        for each in (engine, reference)
    )
    assert ours == theirs


def test_layers_that_see_otherwise_are_not_copies(copied: list[bool]) -> None:
    """Every other one looks back a window: each follows one of the other kind."""
    engine = engine_of(
        "qwen3",
        torch.float32,
        use_sliding_window=True,
        sliding_window=8,
        layer_types=["sliding_attention", "full_attention"] * (LAYERS // 2),
    )
    answers(engine, [None, None, None])
    assert copied
    assert not any(copied)
