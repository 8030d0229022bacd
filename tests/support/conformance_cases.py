"""Every field of PEFT's `LoraConfig`, with values as trainers set them: the rows of the table."""

from __future__ import annotations

import dataclasses
from typing import Any, Final, Literal

import peft
from peft.tuners.lora.config import (
    ArrowConfig,
    BdLoraConfig,
    CordaConfig,
    EvaConfig,
    KasaConfig,
    LoraGAConfig,
    LoraRuntimeConfig,
    MontecloraConfig,
    VeloraConfig,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """One folder: a field, what it is set to, and how the folder is made."""

    field: str
    value: str
    """As the table shows it."""
    config: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Arguments of `LoraConfig`, beside `PLAIN`."""
    saved: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Attributes that the configuration gets before it is saved: what PEFT itself would change, or
    needs a library for."""
    trained: bool = True
    """Whether weights that are saved whole are changed first."""
    kind: Literal["llama", "mixtral"] = "llama"
    """The model that the adapter is of: one whose experts are fused, where it needs them."""


PLAIN: Final[dict[str, Any]] = {
    "r": 4,
    "lora_alpha": 8,
    "target_modules": ["q_proj", "v_proj"],
    "task_type": "CAUSAL_LM",
}


def given(name: str, value: Any, **more: Any) -> Case:
    """Return a case in which a field is passed to `LoraConfig`, perhaps with others."""
    return Case(field=name, value=shown(value), config={name: value} | more)


EXPERTS: Final[dict[str, Any]] = {
    "target_parameters": ["experts.gate_up_proj", "experts.down_proj"]
}


def of_experts(name: str, value: Any, **more: Any) -> Case:
    """Return a case of a mixture of experts, by itself without LoRA of modules."""
    return Case(
        field=name,
        value=f"{shown(value)}, in a mixture of experts",
        config={"target_modules": []} | {name: value} | more,
        kind="mixtral",
    )


def written(name: str, value: Any) -> Case:
    """Return a case in which a field is set between making the model and saving it."""
    return Case(field=name, value=shown(value), saved={name: value})


def shown(value: Any) -> str:
    """Return a value as it stands in the table."""
    name = type(value).__name__
    return f"`{name}(…)`" if name.endswith("Config") else f"`{value!r}`"


CASES: Final = (
    written("peft_type", "IA3"),
    written("base_model_name_or_path", "someone/another-model"),
    given("task_type", None),
    written("auto_mapping", {"base_model_class": "LlamaForCausalLM"}),
    written("peft_version", "0.1.0"),
    given("revision", "main"),
    given("inference_mode", value=True),
    given("r", 3),
    given("r", 64),
    given("lora_alpha", 7.5),
    given("use_rslora", value=True),
    given("use_dora", value=True),
    given("target_modules", ["q_proj", "layers.0.mlp.up_proj"]),
    given("target_modules", r".*\.1\.(mlp\.up|self_attn\.k)_proj"),
    given("target_modules", "all-linear"),
    given("target_modules", None),
    given("target_modules", ["q_proj", "lm_head"]),
    given("target_modules", ["q_proj", "embed_tokens"]),
    given("exclude_modules", ["layers.1.self_attn.q_proj"]),
    given("exclude_modules", r".*\.0\.mlp\..*", target_modules="all-linear"),
    given("layers_to_transform", 1),
    given("layers_to_transform", [0]),
    given("layers_pattern", "layers", layers_to_transform=[1]),
    given("rank_pattern", {"q_proj": 2, "layers.1.self_attn.v_proj": 7}),
    given("alpha_pattern", {"^model.layers.0.*": 3}),
    given("lora_dropout", 0.1),
    given("init_lora_weights", value=True),
    given("init_lora_weights", value=False),
    written("init_lora_weights", None),
    *(given("init_lora_weights", name) for name in ("gaussian", "eva", "orthogonal", "mica")),
    *(given("init_lora_weights", name) for name in ("pissa", "pissa_niter_4", "olora", "lora_ga")),
    *(written("init_lora_weights", name) for name in ("corda", "loftq")),
    given("eva_config", EvaConfig()),
    given("corda_config", CordaConfig()),
    given("lora_ga_config", LoraGAConfig()),
    given("loftq_config", {"loftq_bits": 4}),
    given("lora_bias", value=True),
    given("bias", "lora_only"),
    given("bias", "all"),
    Case(
        field="bias",
        value="`'all'`, and every linear with a bias has LoRA",
        config={"bias": "all", "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"]},
    ),
    Case(
        field="modules_to_save",
        value="`['lm_head']`, trained",
        config={"modules_to_save": ["lm_head"]},
    ),
    Case(
        field="modules_to_save",
        value="`['embed_tokens']`, trained",
        config={"modules_to_save": ["embed_tokens"]},
    ),
    Case(
        field="modules_to_save",
        value="`['norm']`, trained",
        config={"modules_to_save": ["norm"]},
    ),
    Case(
        field="modules_to_save",
        value="`['embed_tokens', 'lm_head']`, as they were",
        config={"modules_to_save": ["embed_tokens", "lm_head"]},
        trained=False,
    ),
    given("trainable_token_indices", [1, 5, 60]),
    given("trainable_token_indices", {"embed_tokens": [17], "lm_head": [9, 301]}),
    given("ensure_weight_tying", value=True),
    written("fan_in_fan_out", value=True),
    given("velora_config", VeloraConfig(num_groups=8)),
    given("monteclora_config", MontecloraConfig()),
    given("kasa_config", KasaConfig()),
    given("use_qalora", value=True),
    given("qalora_group_size", 32),
    given(
        "use_bdlora",
        BdLoraConfig(target_modules_bd_a=["q_proj"], target_modules_bd_b=["v_proj"], nblocks=2),
    ),
    given("alora_invocation_tokens", [17, 33]),
    Case(
        field="alora_invocation_tokens",
        value="`[33, 60]`, with `lora_bias`, and LoRA on `lm_head`",
        config={
            "alora_invocation_tokens": [33, 60],
            "lora_bias": True,
            "target_modules": ["q_proj", "v_proj", "lm_head"],
        },
    ),
    Case(
        field="alora_invocation_tokens",
        value="`[33, 60]`, with tokens that were trained",
        config={"alora_invocation_tokens": [33, 60], "trainable_token_indices": [5]},
    ),
    Case(
        field="alora_invocation_tokens",
        value="`[33, 60]`, with `use_dora`",
        config={"use_dora": True},
        saved={"alora_invocation_tokens": [33, 60]},
    ),
    written("arrow_config", ArrowConfig()),
    given("target_parameters", ["q_proj.weight"], target_modules=[]),
    given("target_parameters", ["embed_tokens.weight"]),
    of_experts("target_parameters", ["experts.gate_up_proj", "experts.down_proj"]),
    of_experts("target_parameters", ["layers.1.mlp.experts.down_proj"], target_modules=["v_proj"]),
    of_experts("target_parameters", ["mlp.gate.weight"]),
    of_experts("rank_pattern", {"experts.gate_up_proj": 1}, **EXPERTS),
    of_experts("alpha_pattern", {"experts.down_proj": 3}, **EXPERTS),
    of_experts("use_rslora", value=True, **EXPERTS),
    Case(
        field="lora_dropout",
        value="`0.1`, beside `target_parameters`",
        config={"target_modules": []} | EXPERTS,
        saved={"lora_dropout": 0.1},
        kind="mixtral",
    ),
    given("layer_replication", [[0, 2], [1, 2]]),
    written("megatron_config", {"tensor_model_parallel_size": 1}),
    given("megatron_core", "megatron.core"),
    given("runtime_config", LoraRuntimeConfig(ephemeral_gpu_offload=True)),
)

FIELDS: Final = frozenset(peft.LoraConfig.__dataclass_fields__)
"""What the installed PEFT has."""
