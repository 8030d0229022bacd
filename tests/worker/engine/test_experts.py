"""LoRA on a mixture's experts: PEFT's answers in a mixed batch, and rows that keep their bits."""

from __future__ import annotations

import copy
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import peft
import pytest
import torch

from aril.schemas import ErrorCode, JobError
from aril.worker.adapters import AdapterStore, AdapterWeights
from aril.worker.engine.config import EngineConfig
from aril.worker.engine.engine import Engine
from aril.worker.engine.expert_modules import parameter_shapes
from aril.worker.engine.lora import AdapterLayers
from aril.worker.engine.model import adopt_backbone, load_backbone
from tests.support.backbone_configs import VOCABULARY
from tests.support.backbones import make_tiny_backbone
from tests.support.peft_reference import Comparison, EngineRuns, Reference
from tests.support.tiny import make_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = EngineConfig(
    max_rows=16, max_step_tokens=24, slots=8, max_rank=8, kv_tokens=2_048, backend="torch"
)
PROMPT = (5, 9, 17, 33, 60, 201, 7, 90, 4, 15, 66)
TOKENS = 4
BOTH = ["experts.gate_up_proj", "experts.down_proj"]
ADAPTERS: dict[str, dict[str, Any]] = {
    "experts": {"target_modules": [], "target_parameters": BOTH},
    "attention": {"target_modules": ["q_proj", "v_proj"]},
    "down": {
        "target_modules": ["q_proj"],
        "target_parameters": [BOTH[1]],
        "use_rslora": True,
    },
    "patterns": {
        "target_modules": [],
        "target_parameters": BOTH,
        "rank_pattern": {BOTH[1]: 1, "layers.1.mlp.experts.gate_up_proj": 3},
        "alpha_pattern": {"gate_up_proj": 5},
    },
    "all": {"target_modules": ["q_proj", "o_proj"], "target_parameters": ["router", *BOTH]},
}
TENANT = "acme"


class Scene:
    """A tiny random mixture of experts, adapters that PEFT saved of it, and an engine."""

    def __init__(self, folder: Path, kind: str, **config: Any) -> None:
        self.model = folder / "model"
        base = make_tiny_backbone(kind)
        base.save_pretrained(self.model)
        make_tokenizer(VOCABULARY).save_pretrained(self.model)
        (router, *_) = parameter_shapes(base).routers
        self.paths = {}
        for seed, (name, fields) in enumerate(ADAPTERS.items()):
            names = fields.get("target_parameters", [])
            weight = f"{router.rpartition('.')[2]}.weight"
            renamed = [weight if each == "router" else each for each in names]
            self.paths[name] = folder / "store" / TENANT / name
            save(self.paths[name], base, seed, **(fields | {"target_parameters": renamed}))
        self.engine = Engine(
            load_backbone(self.model, "cpu", torch.float32), replace(CONFIG, **config)
        )
        self.adapters: dict[str | None, AdapterWeights | None] = {None: None}
        self.adapters |= {name: self.load(folder / "store", name) for name in ADAPTERS}

    def load(self, root: Path, name: str) -> AdapterWeights:
        """Read an adapter as a worker does."""
        store = AdapterStore(
            root,
            base_model=None,
            linear_shapes=self.engine.layers.shapes,
            max_rank=CONFIG.max_rank,
            parameters=self.engine.layers.parameters,
            max_expert_values=1 << 20,
        )
        return store.load(store.find(TENANT, name))


def save(path: Path, base: Any, seed: int, **fields: Any) -> None:
    """Let PEFT save an adapter with random A and B."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that patterns of parameters are ignored: they are not
        torch.manual_seed(seed)
        config = peft.LoraConfig(r=4, lora_alpha=8, task_type="CAUSAL_LM", **fields)
        model = peft.get_peft_model(copy.deepcopy(base), config)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_" in name:
                    parameter.normal_(std=parameter.shape[-1] ** -0.5)
        model.save_pretrained(path)


@pytest.fixture(autouse=True)
def no_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    """PEFT writes a page about each adapter, which takes longer than all else."""
    monkeypatch.setattr(peft.PeftModel, "create_or_update_model_card", lambda *_: None)


@pytest.mark.filterwarnings("ignore:The following .*_pattern keys:RuntimeWarning")  # as in `save`
@pytest.mark.parametrize(
    ("kind", "invariant"),
    [
        ("mixtral", False),
        ("gpt_oss", False),
        ("qwen3_moe", True),
        pytest.param("olmoe", False, marks=pytest.mark.slow),
        pytest.param("qwen2_moe", True, marks=pytest.mark.slow),
        pytest.param("gpt_oss", True, marks=pytest.mark.slow),
    ],
)
def test_answers_equal_pefts(
    kind: str,
    invariant: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rows without an adapter, with LoRA of attention, of experts, of both, of other strengths.

    All in one batch, prompts in chunks, among decodes. GPT-OSS keeps its weights as
    [in, out] and has biases.
    """
    scene = Scene(tmp_path, kind, invariant=invariant)
    runs = EngineRuns.recording(scene.engine, monkeypatch)
    jobs = [(PROMPT[: 11 - 2 * at], name) for at, name in enumerate((*ADAPTERS, None))]
    scales = [(1.0, 0.5, 2.0)[at % 3] for at in range(len(ADAPTERS))]
    found = runs.generate(
        [(prompt, scene.adapters[name]) for prompt, name in jobs], TOKENS, [*scales, 1.0]
    )
    comparison = Comparison()
    (plain,) = runs.generate([(PROMPT[:1], None)], 1)
    for (prompt, name), ours, scale in zip(jobs, found, [*scales, 1.0], strict=True):
        if name is not None:
            reference = Reference(scene.model, {name: scene.paths[name]})
            expected = reference.generate_scaled(prompt, name, scale, TOKENS)
            comparison.check(f"{kind}, {name}", ours, expected)
    assert torch.equal(found[-1].logits[0], plain.logits[0]) or not invariant
    assert comparison.steps >= 0.9 * len(ADAPTERS) * TOKENS, comparison.near_ties


def test_rows_keep_their_bits_beside_any_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In invariant mode each answer alone has the logits that it has in the batch, bit for bit."""
    scene = Scene(tmp_path, "mixtral", invariant=True)
    runs = EngineRuns.recording(scene.engine, monkeypatch)
    jobs = [(PROMPT[: 11 - at % 7], name) for at, name in enumerate([*scene.adapters] * 2)]
    together = runs.generate([(prompt, scene.adapters[name]) for prompt, name in jobs], TOKENS)
    for (prompt, name), mixed in zip(jobs, together, strict=True):
        (alone,) = runs.generate([(prompt, scene.adapters[name])], TOKENS)
        assert torch.equal(alone.logits, mixed.logits), name


def test_a_slot_is_emptied_for_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an adapter of experts, one without runs in the same slot as if it were the first."""
    scene = Scene(tmp_path, "mixtral", slots=1)
    runs = EngineRuns.recording(scene.engine, monkeypatch)
    (before,) = runs.generate([(PROMPT, scene.adapters["attention"])], 2)
    assert scene.engine.layers.recordable([0])
    runs.generate([(PROMPT, scene.adapters["experts"])], 2)
    assert not scene.engine.layers.recordable([0])  # recorded steps know nothing of it
    (after,) = runs.generate([(PROMPT, scene.adapters["attention"])], 2)
    assert torch.equal(before.logits, after.logits)
    assert scene.engine.layers.recordable([0])


@pytest.mark.parametrize("implementation", ["eager", "batched_mm", "grouped_mm"])
def test_every_implementation_of_experts_may_be_set(
    implementation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps without adapters go its way, and ours gives the same beside an adapter that adds 0."""
    scene = Scene(tmp_path, "mixtral")
    scene.engine.backbone.model.set_experts_implementation(implementation)
    runs = EngineRuns.recording(scene.engine, monkeypatch)
    (theirs,) = runs.generate([(PROMPT, None)], 1)
    adapter = scene.adapters["experts"]
    assert adapter is not None
    nothing = {name: replace(each, scaling=0.0) for name, each in adapter.experts.items()}
    silent = replace(adapter, digest="silent", experts=nothing)
    both = runs.generate([(PROMPT, None), (PROMPT, silent)], 1)
    for ours in both:
        assert torch.allclose(ours.logits, theirs.logits, atol=1e-4)


def test_experts_past_the_last_add_nothing() -> None:
    """What transformers routes to nobody counts for nothing, and a row of nothing else is zero."""
    model = make_tiny_backbone("mixtral")
    module = model.model.layers[0].mlp.experts
    model.set_experts_implementation("eager")
    x = torch.rand(3, 64)
    chosen = torch.tensor([[0, 4], [4, 4], [2, 1]])
    shares = torch.tensor([[0.5, 0.5], [0.5, 0.5], [0.3, 0.7]])
    expected = module(x, chosen, shares)
    backbone = adopt_backbone(model, make_tokenizer(VOCABULARY), "cpu", name="tiny")
    layers = AdapterLayers(backbone, replace(CONFIG, invariant=True))
    found = layers.experts["model.layers.0.mlp.experts"].forward(x, chosen, shares)
    assert torch.allclose(found, expected, atol=1e-5)
    assert not found[1].any()


def test_memory_that_is_not_there_is_told_before_anything_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`overloaded`, and the adapter that was in the slot answers as before."""
    scene = Scene(tmp_path, "mixtral", slots=1)
    runs = EngineRuns.recording(scene.engine, monkeypatch)
    (before,) = runs.generate([(PROMPT, scene.adapters["down"])], 1)

    def full(*_: object) -> None:
        raise MemoryError

    adapter = scene.adapters["experts"]
    assert adapter is not None
    with monkeypatch.context() as patch:
        patch.setattr("aril.kernels.sgmv.PackedExperts.pack", full)
        with pytest.raises(JobError) as caught:
            scene.engine.layers.load(0, adapter)
    assert caught.value.code is ErrorCode.OVERLOADED
    (after,) = runs.generate([(PROMPT, scene.adapters["down"])], 1)
    assert torch.equal(before.logits, after.logits)


@pytest.mark.parametrize(("kind", "routers"), [("mixtral", 2), ("deepseek_v3", 0), ("llama", 0)])
def test_routers_are_found_by_what_they_do(kind: str, routers: int) -> None:
    """DeepSeek's multiplies by a copy of its weight, where no adapter could come between."""
    found = parameter_shapes(make_tiny_backbone(kind))
    assert len(found.routers) == routers
    assert bool(found.experts) == (kind != "llama")
