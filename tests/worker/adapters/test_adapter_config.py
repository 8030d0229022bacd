"""The configuration means to us what it means to PEFT, and no field of PEFT goes unnoticed."""

import dataclasses
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from peft import PeftModel
from peft.tuners.tuners_utils import check_target_module_exists
from transformers import AutoModelForCausalLM

from aril.worker.adapters import AdapterStore
from aril.worker.adapters.config import (
    HONOURED,
    TRAINING_ONLY,
    canonical,
    parse_config,
    read_fields,
)
from aril.worker.adapters.targets import read_targets
from tests.support.adapter_folders import fields
from tests.support.tiny import make_tiny_adapter, make_tiny_model

# Fields that must be switched off. Whoever adds one here has read what it does.
REFUSED = {
    "arrow_config",
    "kasa_config",
    "layer_replication",
    "megatron_config",
    "use_bdlora",
    "use_qalora",
}


def test_every_field_of_the_installed_peft_is_known() -> None:
    """A release of PEFT with a new field fails here, before a tenant finds out."""
    known = HONOURED | TRAINING_ONLY | REFUSED
    assert {field.name for field in dataclasses.fields(peft.LoraConfig)} <= known


def test_the_defaults_of_the_installed_peft_are_accepted(tmp_path: Path) -> None:
    """A configuration that PEFT writes without being asked for anything special is served."""
    peft.LoraConfig(target_modules=["q_proj"]).save_pretrained(tmp_path)
    config = parse_config(read_fields((tmp_path / "adapter_config.json").read_bytes()))
    assert (config.rank, config.alpha, config.rslora) == (8, 8, False)


@pytest.mark.parametrize("name", sorted(TRAINING_ONLY))
def test_fields_of_training_do_not_matter(name: str) -> None:
    """Whatever they hold, the adapter is served the same."""
    plain, changed = parse_config(fields()), parse_config(fields(**{name: {"any": "thing"}}))
    assert (changed.rank, changed.alpha, changed.targets) == (
        plain.rank,
        plain.alpha,
        plain.targets,
    )


@pytest.mark.parametrize("name", sorted(HONOURED - {"peft_type", "r", "lora_alpha"}))
def test_null_is_the_default(name: str) -> None:
    """PEFT writes null for what was not given, and older releases for what they did not know."""
    found = parse_config(fields(**{name: None}))
    assert (found.dora, found.rslora, found.lora_bias) == (False, False, False)


@pytest.mark.parametrize("off", [None, False, [], {}, ""])
def test_a_field_that_is_off_does_not_matter(off: Any) -> None:
    """A field of a later PEFT is no reason to refuse as long as it is switched off."""
    assert parse_config(fields(use_something_new=off)).rank == 3


def test_targets_match_as_peft_matches_them() -> None:
    """A target is a whole ending of the path: no half names."""
    targets = read_targets({"target_modules": ["q_proj", "mlp.up", "model.layers.0.v"]})
    assert targets.includes("model.layers.0.attn.q_proj")
    assert targets.includes("model.layers.0.mlp.up")
    assert targets.includes("model.layers.0.v")
    assert not targets.includes("model.layers.0.attn.big_q_proj")
    assert not targets.includes("model.layers.0.up")
    assert not targets.includes("model.layers.1.v")


MODULES = [
    f"model.layers.{layer}.{name}"
    for layer in (0, 1, 10)
    for name in ("self_attn.q_proj", "self_attn.v_proj", "mlp.up_proj")
] + ["lm_head", "model.blocks.1.mlp.up_proj", "layers.1.q_proj", "model.layers.1.mlp.big_up_proj"]
NARROWED: list[dict[str, Any]] = [
    {"exclude_modules": ["v_proj"]},
    {"exclude_modules": ["layers.1.self_attn.q_proj", "lm_head"]},
    {"layers_to_transform": 1},
    {"layers_to_transform": [0, 10]},
    {"layers_to_transform": []},
    {"layers_to_transform": [1], "layers_pattern": "layers"},
    {"layers_to_transform": [1], "layers_pattern": ["blocks", "layers"]},
    {"layers_to_transform": [1], "layers_pattern": "blocks"},
    {"layers_to_transform": [0], "exclude_modules": ["q_proj"]},
    {"modules_to_save": ["lm_head", "self_attn"]},
    {"target_modules": ["model.layers.0.mlp.up_proj", "q_proj"], "layers_to_transform": [1]},
]


@pytest.mark.parametrize("narrowing", NARROWED, ids=str)
def test_what_narrows_the_targets_is_read_as_peft_reads_it(narrowing: dict[str, Any]) -> None:
    """Module by module, PEFT's own function says the same."""
    given = {"target_modules": ["q_proj", "v_proj", "up_proj", "lm_head"]} | narrowing
    targets, config = read_targets(given), peft.LoraConfig(**given)
    theirs = {name: check_target_module_exists(config, name) is True for name in MODULES}
    assert {name: targets.includes(name) for name in MODULES} == theirs
    assert 0 < sum(theirs.values()) < len(MODULES)


def test_a_tenants_expression_is_left_to_the_tensors() -> None:
    """`exclude_modules` and `layers_pattern` may be expressions: what one would tell is open."""
    excluding = read_targets({"target_modules": ["q_proj"], "exclude_modules": "(a+)+$"})
    assert excluding.includes("model.layers.0.q_proj") is None
    assert excluding.includes("model.layers.0.v_proj") is False
    within = {"layers_to_transform": [0], "layers_pattern": "(a+)+"}
    layered = read_targets({"target_modules": ["q_proj"]} | within)
    assert layered.includes("model.layers.0.q_proj") is None


def test_canonical_form_forgets_layout_and_keeps_order() -> None:
    """Layout is not content; the order of patterns is, as the first match counts."""
    spread = b'{ "r": 3,\n "task_type": "\\u0041" }'
    assert canonical(read_fields(spread)) == canonical(read_fields(b'{"r":3,"task_type":"A"}'))
    first = canonical({"rank_pattern": {"q.*": 1, "q_proj": 2}})
    assert first != canonical({"rank_pattern": {"q_proj": 2, "q.*": 1}})


CASES: dict[str, dict[str, Any]] = {
    "plain": {"rank": 8, "alpha": 16},
    "alpha that is no multiple": {"rank": 3, "alpha": 7},
    "rslora": {"rank": 8, "alpha": 16, "rslora": True},
    "attention only": {"rank": 4, "targets": ("q_proj", "o_proj")},
    "rank by ending": {"rank": 4, "rank_pattern": {"q_proj": 2, "mlp.down_proj": 6}},
    "rank and alpha by path": {
        "rank": 4,
        "rank_pattern": {"model.layers.0.self_attn.k_proj": 5},
        "alpha_pattern": {"layers.1.mlp.up_proj": 3, "v_proj": 1},
    },
    "patterns with rslora": {
        "rank": 4,
        "rslora": True,
        "rank_pattern": {"gate_proj": 7},
        "alpha_pattern": {"gate_proj": 5, "q_proj": 9},
    },
    "regular expressions": {
        "rank": 4,
        "rank_pattern": {"(gate|up).*": 3, r"layers\.[01]\.self_attn\.(q|k)_proj": 2},
        "alpha_pattern": {"^model.layers.0.*up_proj": 2, r"up_proj|down_proj": 6},
    },
    "dora": {"rank": 8, "alpha": 16, "use_dora": True},
    "dora with patterns": {
        "rank": 4,
        "rslora": True,
        "use_dora": True,
        "rank_pattern": {"gate_proj": 7},
        "alpha_pattern": {"gate_proj": 5, "q_proj": 9},
    },
    "patterns that match nothing": {
        "rank": 4,
        "rank_pattern": {"proj": 1, "self_attn": 1, "^q_proj": 1},
        "alpha_pattern": {"layers.0": 1},
    },
}


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a tiny Llama."""
    return make_tiny_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing")  # PEFT reads a renamed property
@pytest.mark.filterwarnings("ignore:.*did not match any targeted module")  # two cases mean it
@pytest.mark.parametrize("case", CASES)
def test_modules_ranks_scalings_and_deltas_are_those_of_peft(
    tmp_path: Path, model_path: Path, case: str
) -> None:
    """What PEFT wrote is read back as what PEFT itself reads back: no module more or less."""
    make_tiny_adapter(tmp_path / "acme/one", model_path, **CASES[case])
    model = AutoModelForCausalLM.from_pretrained(model_path)
    shapes = {
        name: (module.out_features, module.in_features)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
    }
    store = AdapterStore(tmp_path, base_model=str(model_path), linear_shapes=shapes, max_rank=8)
    ours = store.load(store.find("acme", "one"))
    theirs = {
        name.removeprefix("base_model.model."): module
        for name, module in PeftModel.from_pretrained(model, tmp_path / "acme/one").named_modules()
        if hasattr(module, "lora_A")
    }
    assert set(ours.modules) == set(theirs)
    assert ours.rank == max(module.rank for module in ours.modules.values())
    for name, module in ours.modules.items():
        assert module.rank == theirs[name].r["default"]
        assert module.scaling == theirs[name].scaling["default"]
        torch.testing.assert_close(
            module.scaling * (module.b @ module.a), theirs[name].get_delta_weight("default")
        )
        if CASES[case].get("use_dora"):
            assert module.magnitude is not None
            magnitude = theirs[name].lora_magnitude_vector["default"].weight
            assert torch.equal(module.magnitude, magnitude)
        else:
            assert module.magnitude is None
