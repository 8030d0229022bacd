"""Fifteen kinds of adapters as PEFT saves them, three prompts each, in one batch: PEFT's tokens."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Final, Literal

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM

from aril.demo.model import ensure_model
from aril.worker.adapters import AdapterStore
from aril.worker.engine.config import EngineConfig
from aril.worker.engine.engine import Engine
from aril.worker.engine.model import load_backbone
from tests.support.conformance import save
from tests.support.conformance_cases import Case
from tests.support.peft_reference import Comparison, EngineRuns, Reference
from tests.support.tiny import make_tiny_experts, make_tiny_model

if TYPE_CHECKING:
    from pathlib import Path

Model = Literal["llama", "mixtral", "smollm2"]

INVOCATION: Final = (71, 72)
TOKENS: Final = 8
MAX_RANK: Final = 16
ALL: Final = {"target_modules": "all-linear"}

# Ranks that are no power of two, and what else trainers set; beside conformance's plain case.
KINDS: Final[dict[str, dict[str, Any]]] = {
    "rank-3": {"r": 3, "lora_alpha": 5, "target_modules": ["q_proj"]},
    "rank-5": {"r": 5, "lora_alpha": 1.5, "target_modules": ["down_proj", "k_proj"]},
    "rank-7-stabilised": {"r": 7, "lora_alpha": 3, "use_rslora": True} | ALL,
    "rank-13": {"r": 13, "lora_alpha": 26} | ALL,
    "dora": {"r": 5, "use_dora": True, "target_modules": ["gate_proj", "o_proj"]},
    "dora-stabilised": {"r": 13, "use_dora": True, "use_rslora": True} | ALL,
    "patterns": {
        "r": 6,
        "target_modules": ["q_proj", "v_proj", "down_proj"],
        "rank_pattern": {r".*layers\.1\..*q_proj": 11, "down_proj": 1},
        "alpha_pattern": {r"^model\.layers\.0\..*": 2, "v_proj": 20},
    },
    "one-module": {"r": 9, "target_modules": ["model.layers.1.mlp.up_proj"]},
    "regex": {
        "r": 7,
        "target_modules": r".*layers\.[01]\.self_attn\.(q|o)_proj|.*\.0\.mlp\.gate_proj",
    },
    "one-layer": {
        "r": 3,
        "target_modules": ["q_proj", "gate_proj"],
        "layers_to_transform": [1],
        "layers_pattern": "layers",
    },
    "excluded": {"r": 5, "exclude_modules": r".*(k|down)_proj|.*\.0\..*o_proj"} | ALL,
    "lora-bias": {"lora_bias": True, "target_modules": ["o_proj", "up_proj"]},
    "tokens": {"r": 3, "trainable_token_indices": [5, 6, 7, 8, 9, 71, 300]},
    "invoked": {
        "r": 13,
        "alora_invocation_tokens": list(INVOCATION),
        "target_modules": ["q_proj", "k_proj", "v_proj", "up_proj"],
    },
    "head": {"r": 7, "lora_alpha": 14, "target_modules": ["lm_head", "q_proj"]},
}
FUSED: Final = ["experts.gate_up_proj", "experts.down_proj"]
EXPERT_KINDS: Final[dict[str, dict[str, Any]]] = {
    "rank-3": {"r": 3, "target_modules": [], "target_parameters": FUSED},
    "one-weight": {
        "r": 13,
        "target_modules": [],
        "target_parameters": ["layers.0.mlp.experts.gate_up_proj"],
    },
    "patterns": {
        "r": 2,
        "target_modules": [],
        "target_parameters": FUSED,
        "rank_pattern": {"experts.gate_up_proj": 7},
        "alpha_pattern": {r".*layers\.1.*experts.down_proj": 9},
    },
    "router": {"r": 7, "target_modules": ["v_proj"], "target_parameters": ["mlp.gate.weight"]},
    "stabilised": {
        "r": 5,
        "use_rslora": True,
        "target_modules": ["o_proj"],
        "target_parameters": FUSED,
    },
    "linears-only": {"r": 7},
    "dora": {"r": 3, "use_dora": True},
}


def model_of(kind: Model, folder: Path) -> Path:
    """Return a tiny model, or the demo's."""
    if kind == "smollm2":
        return ensure_model()
    return make_tiny_model(folder) if kind == "llama" else make_tiny_experts(folder)


def prompts() -> list[tuple[int, ...]]:
    """Return one without the invocation, one with it, and one in which the last of two counts."""
    numbers = random.Random(7)
    short, middle, long, end = (
        tuple(numbers.randrange(5, 384) for _ in range(length)) for length in (7, 23, 61, 9)
    )
    return [short, middle + INVOCATION + end, INVOCATION + long + INVOCATION + end]


@pytest.mark.filterwarnings("ignore")  # PEFT's, on half of the kinds
@pytest.mark.parametrize(
    "kind",
    ["llama", *(pytest.param(name, marks=pytest.mark.slow) for name in ("mixtral", "smollm2"))],
)
def test_kinds_side_by_side_give_pefts_answers(
    kind: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each row is what PEFT's own `generate` gives for it alone: tokens, and logits to rounding."""
    monkeypatch.setattr(peft.PeftModel, "create_or_update_model_card", lambda *_: None)  # slow
    model = model_of(kind, tmp_path / "model")
    kinds = EXPERT_KINDS if kind == "mixtral" else KINDS
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    backbone = load_backbone(model, "cpu", torch.float32)
    store = AdapterStore(
        tmp_path / "store",
        base_model=backbone.name,
        linear_shapes=backbone.linear_shapes,
        max_rank=MAX_RANK,
        own=backbone.own_weights,
        parameters=backbone.parameters,
        max_expert_values=1 << 20,
    )
    folders = {name: tmp_path / "store" / "acme" / name for name in kinds}
    for seed, (name, config) in enumerate(kinds.items()):
        save(Case(field="", value=name, config=config), folders[name], base, seed=seed)
    adapters = {name: store.load(store.find("acme", name)) for name in kinds}
    jobs = [(prompt, name) for name in kinds for prompt in prompts()]
    limits = EngineConfig(
        max_rows=len(jobs),
        max_step_tokens=96,  # less than the long prompts together: they come in pieces
        slots=len(kinds),
        max_rank=MAX_RANK,
        kv_tokens=len(jobs) * 128,
    )
    runs = EngineRuns.recording(Engine(backbone, limits), monkeypatch)
    found = runs.generate([(prompt, adapters[name]) for prompt, name in jobs], TOKENS)
    comparison = Comparison()
    reference = None
    for (prompt, name), ours in zip(jobs, found, strict=True):
        if reference is None or name not in reference.model.peft_config:
            reference = Reference(model, {name: folders[name]})
        label = f"{name}, prompt of {len(prompt)}"
        comparison.check(label, ours, reference.generate(prompt, name, TOKENS))
    print(f"{len(jobs)} rows, {comparison.steps} steps equal; near ties: {comparison.near_ties}")
    assert comparison.steps >= 0.9 * len(jobs) * TOKENS
