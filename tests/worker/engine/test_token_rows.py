"""Tokens that an adapter has trained anew: PEFT's answers, tied or not, for its own rows only."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from aril.worker.adapters import AdapterStore, AdapterWeights
from aril.worker.engine.config import EngineConfig
from aril.worker.engine.engine import Engine
from aril.worker.engine.model import Backbone, load_backbone
from tests.support.conformance import save
from tests.support.conformance_cases import given
from tests.support.peft_reference import Comparison, EngineRuns, Reference
from tests.support.tiny import Architecture, make_tiny_model

if TYPE_CHECKING:
    from pathlib import Path

PROMPT = (5, 9, 17, 33, 60, 201, 7)
TOKENS = 8
CONFIG = EngineConfig(max_rows=8, max_step_tokens=16, slots=4, max_rank=8, kv_tokens=512)
CASES: dict[str, Any] = {
    "tokens": given("trainable_token_indices", [5, 17, 60, 301]),
    "whole": given("modules_to_save", ["embed_tokens", "lm_head"]),
    "embeddings": given("modules_to_save", ["embed_tokens"]),
    "plain": given("r", 4),
}


def saved(folder: Path, arch: Architecture) -> tuple[Backbone, dict[str, Path]]:
    """Make a model whose tables are tied, and an adapter of each case by PEFT."""
    model = make_tiny_model(folder / "tiny", arch, tie_word_embeddings=True)
    base = AutoModelForCausalLM.from_pretrained(model)
    paths = {name: folder / "store" / "acme" / name for name in CASES}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT's, on tied weights
        for seed, (name, case) in enumerate(CASES.items()):
            save(case, paths[name], base, seed=seed)
    return load_backbone(model, "cpu", torch.float32), paths


def read(backbone: Backbone, folder: Path) -> dict[str | None, AdapterWeights | None]:
    """Read the adapters; None for none."""
    store = AdapterStore(
        folder / "store",
        base_model=backbone.name,
        linear_shapes=backbone.linear_shapes,
        max_rank=8,
        own=backbone.own_weights,
    )
    return {None: None} | {name: store.load(store.find("acme", name)) for name in CASES}


@pytest.mark.parametrize("arch", ["llama", "gemma"])  # not tied: tests/conformance
def test_answers_equal_pefts(
    arch: Architecture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one batch with plain LoRA and the backbone, prompts in chunks, logits and tokens agree."""
    backbone, paths = saved(tmp_path, arch)
    adapters = read(backbone, tmp_path)
    engine = Engine(backbone, CONFIG)
    runs = EngineRuns.recording(engine, monkeypatch)
    found = runs.generate([(PROMPT, adapter) for adapter in adapters.values()], TOKENS)
    comparison = Comparison()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, ours in zip(adapters, found, strict=True):
            paths_of = {name: paths[name]} if name else {"plain": paths["plain"]}
            model = Reference(tmp_path / "tiny", paths_of)
            comparison.check(str(name), ours, model.generate(PROMPT, name, TOKENS))
    assert comparison.steps >= 0.9 * TOKENS * len(adapters), comparison.near_ties


def test_a_slot_keeps_no_tokens_of_another_adapter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one slot that adapters take in turns, each answer is that of a fresh engine."""
    backbone, _ = saved(tmp_path, "llama")
    adapters = read(backbone, tmp_path)
    runs = EngineRuns.recording(Engine(backbone, replace(CONFIG, slots=1)), monkeypatch)
    order = ("plain", "tokens", "plain", "whole", "plain")
    answers = [runs.generate([(PROMPT, adapters[name])], TOKENS)[0] for name in order]
    assert torch.equal(answers[0].logits, answers[2].logits)
    assert torch.equal(answers[0].logits, answers[4].logits)
    assert not torch.equal(answers[0].logits, answers[1].logits)
    assert runs.engine.layers.recordable([0])


def test_in_invariant_mode_neighbours_change_no_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logits of trained tokens are products of their own: they come in blocks as well."""
    backbone, _ = saved(tmp_path, "llama")
    adapters = read(backbone, tmp_path)
    runs = EngineRuns.recording(Engine(backbone, replace(CONFIG, invariant=True)), monkeypatch)
    (alone,) = runs.generate([(PROMPT, adapters["tokens"])], TOKENS)
    mixed = runs.generate([(PROMPT, adapters[name]) for name in (None, "whole", "tokens")], TOKENS)
    assert torch.equal(mixed[2].logits, alone.logits)
