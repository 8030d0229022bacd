"""Models without the attention interface: led to our attention, or refused by their class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor
from transformers.models.llama import modeling_llama

from aril.worker.adapters import AdapterStore
from aril.worker.engine.attention import UnsupportedModelError
from aril.worker.engine.config import EngineConfig
from aril.worker.engine.engine import Engine
from aril.worker.engine.model import Backbone, adopt_backbone, load_backbone
from aril.worker.engine.probe import plain_logits, probe_packed_rows
from tests.support.backbones import make_tiny_backbone
from tests.support.peft_reference import Comparison, EngineRuns, Reference
from tests.support.tiny import make_tiny_adapter, make_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

PARALLEL = {"use_parallel_residual": True, "qk_layernorm": True}
GROUPED: dict[str, Any] = {"new_decoder_architecture": True, "num_kv_heads": 2}


def tiny_backbone(kind: str, **changes: Any) -> Backbone:
    """Adopt a random model of a kind."""
    model = make_tiny_backbone(kind, **changes)
    return adopt_backbone(model, make_tokenizer(), "cpu", name=kind)


@pytest.mark.parametrize(
    ("kind", "changes", "kv_heads", "windows"),
    [
        ("falcon", {"multi_query": True}, 1, [None, None]),
        ("falcon", {"multi_query": False, "parallel_attn": False}, 4, [None, None]),
        ("falcon", GROUPED, 2, [None, None]),
        ("gptj", {}, 4, [None, None]),
        ("codegen", {}, 4, [None, None]),
        ("gpt_neo", {}, 4, [None, 8]),
        ("gpt_neox_japanese", {}, 4, [None, None]),
        ("xglm", {}, 4, [None, None]),
        ("stablelm", PARALLEL, 2, [None, None]),
        ("nemotron", {}, 2, [None, None]),
    ],
)
def test_logits_are_the_models_own(
    kind: str, changes: dict[str, Any], kv_heads: int, windows: list[int | None]
) -> None:
    """Mixed rows in two chunks; a group's keys are kept once, and windows are found."""
    backbone = tiny_backbone(kind, **changes)
    assert [layout.kv_heads for layout in backbone.layouts] == [kv_heads] * 2
    assert [layout.window for layout in backbone.layouts] == windows
    assert probe_packed_rows(backbone, plain_logits(backbone), "torch") < 1e-5


@pytest.mark.parametrize(
    ("kind", "changes", "told"),
    [
        ("bloom", {}, r"^bloom: positions are a bias on its scores \(ALiBi\)"),
        ("falcon", {"alibi": True}, r"^falcon: positions are a bias on its scores"),
        ("rembert", {}, "^rembert: RemBertAttention does not use transformers' attention inter"),
        ("bart", {}, "^bart: it counts positions itself"),
    ],
)
def test_what_cannot_be_led_is_refused(kind: str, changes: dict[str, Any], told: str) -> None:
    """In one line that says which class, or what it has."""
    with pytest.raises(UnsupportedModelError, match=told):
        tiny_backbone(kind, **changes)


def test_a_part_that_fails_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal is our words, never those of a Python exception."""

    def forward(_self: Any, _x: Tensor, missing: Tensor) -> Tensor:
        return missing

    monkeypatch.setattr(modeling_llama.LlamaMLP, "forward", forward)
    model = make_tiny_backbone("llama", run=False)
    with pytest.raises(UnsupportedModelError) as refused:
        adopt_backbone(model, make_tokenizer(), "cpu", name="llama")
    assert str(refused.value) == "llama: LlamaDecoderLayer.forward cannot run on packed rows"


def test_adapters_of_falcon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its linears are of a class of their own: adapters at them answer as PEFT's do, mixed."""
    model = tmp_path / "model"
    make_tiny_backbone("falcon", **GROUPED).save_pretrained(model)
    make_tokenizer().save_pretrained(model)
    targets = ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h")
    paths = {
        name: make_tiny_adapter(tmp_path / "acme" / name, model, rank, targets=some, use_dora=dora)
        for name, rank, some, dora in (("all", 8, targets, False), ("dora", 4, targets[:1], True))
    }
    backbone = load_backbone(model, "cpu", torch.float32)
    config = EngineConfig(max_rows=4, max_step_tokens=16, slots=2, max_rank=8, kv_tokens=256)
    store = AdapterStore(
        tmp_path, base_model=None, linear_shapes=backbone.linear_shapes, max_rank=8
    )
    adapters = [None, *(store.load(store.find("acme", name)) for name in paths)]
    jobs = [(tuple(range(3 + at, 23 + 5 * at)), adapter) for at, adapter in enumerate(adapters)]
    reference = Reference(model, paths)
    found = EngineRuns.recording(Engine(backbone, config), monkeypatch).generate(jobs, 8)
    comparison = Comparison()
    for name, (prompt, _), run in zip((None, *paths), jobs, found, strict=True):
        comparison.check(str(name), run, reference.generate(prompt, name, 8))
    assert comparison.steps > 12
