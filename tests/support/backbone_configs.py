"""Tiny configurations of any kind of model: two layers, hidden 64, four heads of 16."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import transformers
from transformers import CONFIG_MAPPING
from transformers.integrations.heterogeneity.configuration_utils import (
    AmbiguousGlobalPerLayerAttributeError,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

if TYPE_CHECKING:
    from transformers import PretrainedConfig

VOCABULARY: Final = 384

_HIDDEN: Final = ("hidden_size", "n_embd", "d_model", "word_embed_proj_dim")
_WIDE: Final = ("intermediate_size", "ffn_dim", "n_inner", "decoder_ffn_dim", "ffn_hidden_size")
_LAYERS: Final = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers")
_HEADS: Final = (
    *("num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads"),
)
_EXPERTS: Final = ("num_experts", "num_local_experts", "n_routed_experts")
_TOKENS: Final = ("pad_token_id", "bos_token_id", "eos_token_id")

# What is set wherever a configuration has the field.
_SMALL: Final[dict[str, Any]] = {
    **dict.fromkeys(_HIDDEN, 64),
    **dict.fromkeys(_WIDE, 128),
    **dict.fromkeys(_LAYERS, 2),
    **dict.fromkeys(_HEADS, 4),
    **dict.fromkeys(_EXPERTS, 4),
    **dict.fromkeys(_TOKENS, 1),
    "num_blocks": 2,
    "vocab_size": VOCABULARY,
    "head_dim": 16,
    "num_key_value_heads": 2,
    "multi_query_group_num": 2,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "max_position_embeddings": 128,
    "n_positions": 128,
    "sliding_window": 8,
    "attention_chunk_size": 8,
    "floor_scale": 4,
    "hidden_size_global": 64,
    "is_decoder": True,
    # so that two layers show what many have
    "first_k_dense_replace": 1,
    "no_rope_layer_interval": 2,
    "cross_attention_layers": [1],
}

# Attention through a latent: its width of a head is made of these, and differs for values.
_LATENT: Final[dict[str, Any]] = {
    "q_lora_rank": 32,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 16,
    "num_key_value_heads": 4,
    "n_group": 1,
    "topk_group": 1,
}

# Half of the layers take the keys and values of others, as in the small ones of Gemma 3n and 4.
_SHARED: Final[dict[str, Any]] = {
    "num_hidden_layers": 4,
    "num_kv_shared_layers": 2,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
}

# Kinds that are in transformers' list and cannot be tried, or answer no text.
NOT_TRIED: Final[dict[str, str]] = {
    "gemma3n": "needs the library timm for its images; its text's part is `gemma3n_text`",
    "gemma4_assistant": "drafts tokens for another model, whose states it reads",
    "gemma4_unified_assistant": "drafts tokens for another model, whose states it reads",
    "musicgen": "reads and makes several codes of sound at a place",
    "musicgen_melody": "reads and makes several codes of sound at a place",
}

# What some kinds need beside that; None leaves a field as it is by default.
_OWN: Final[dict[str, dict[str, Any]]] = {
    "beam": {"n_group": 1, "topk_group": 1},
    "blt": {"encoder_hash_byte_group_vocab": 64},
    "codegen": {"rotary_dim": 8},
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "rope_theta": 1e4, "clip_qkv": 8},
        "ffn_config": {"hidden_size": 64, "ffn_hidden_size": 64, "moe_num_experts": 4},
    },
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1},
    "falcon": {"head_dim": None},
    "gemma3n_text": {
        **_SHARED,
        "intermediate_size": [128] * 4,
        "activation_sparsity_pattern": [0.95, 0.0] * 2,
        "vocab_size_per_layer_input": VOCABULARY,
        "hidden_size_per_layer_input": 16,
        "laurel_rank": 8,
    },
    "gemma4_text": {
        **_SHARED,
        "head_dim": 16,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "per_layer_config": {"1": {"head_dim": 32}, "3": {"head_dim": 32}},
        "vocab_size_per_layer_input": VOCABULARY,
        "hidden_size_per_layer_input": 16,
    },
    "gptj": {"rotary_dim": 8},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 8},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "mamba2": {"num_heads": 8, "head_dim": 16, "n_groups": 1},
    "longcat_flash": {
        "head_dim": 8,
        "moe_topk": 2,
        "expert_ffn_hidden_size": 32,
        "zero_expert_num": 2,
    },
    "prophetnet": {"num_hidden_layers": None, "num_encoder_layers": 2, "num_decoder_layers": 2},
    "reformer": {"axial_pos_embds_dim": (32, 32), "axial_pos_shape": (8, 16)},
    "xlnet": {"max_position_embeddings": None},
    "xmod": {"default_language": "en_XX"},
    "zamba": {"num_hidden_layers": 3, "layer_types": ["linear_attention", "hybrid", "hybrid"]},
    "zaya": {"num_experts_per_tok": 1},
    "cohere_compass_text": {
        "layer_types": ["full_attention"] * 2,
        "rope_parameters": {
            "full_attention": {
                "rope_type": "default",
                "rope_theta": 1e4,
                "mrope_section": [2, 3, 3],
            }
        },
    },
    "qwen4_exp_text": {
        "indexer_budget": 8,
        "indexer_compress_ratio": 2,
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 16,
    },
}


def tiny_config(kind: str, **changes: Any) -> PretrainedConfig:
    """Return a tiny configuration of a kind, as its causal language model takes it.

    `changes` are fields of the text's configuration.

    Raises whatever transformers raises where a field does not fit.
    """
    usual = CONFIG_MAPPING[kind]()
    taken = model_class(kind).config_class
    if type(usual) is not taken:  # of a model with more than text, the text's
        parts = (_sub(usual, name) for name, each in _subs(usual) if each is taken)
        usual = next(parts, usual)
    return _tiny(usual, **changes)


def model_class(kind: str) -> Any:
    """Return transformers' causal language model of a kind."""
    name = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[kind]
    return getattr(transformers, name if isinstance(name, str) else name[0])


def _tiny(usual: PretrainedConfig, **changes: Any) -> PretrainedConfig:
    """Make a tiny one of the same class as a usual one, with what belongs to it."""
    fields = {name: value for name, value in _SMALL.items() if _settable(usual, name)}
    if "sliding_window" in fields and usual.sliding_window is None:
        del fields["sliding_window"]  # by default it has none, and would not look at it
    for name in ("layer_types", "mlp_layer_types", "layers_block_type"):
        if _settable(usual, name) and isinstance(getattr(usual, name), list):
            found = list(dict.fromkeys(getattr(usual, name)))
            fields[name] = (found * 2)[:2]  # of each type a layer, as far as two can
    if _has(usual, "qk_rope_head_dim"):
        fields.pop("head_dim", None)
        fields |= {name: value for name, value in _LATENT.items() if _settable(usual, name)}
    fields |= {name: _tiny(_sub(usual, name)) for name, _ in _subs(usual) if _sub(usual, name)}
    fields |= _OWN.get(usual.model_type, {}) | changes
    given = {name: value for name, value in fields.items() if value is not None}
    made: PretrainedConfig = type(usual)(**given)
    return made


def _subs(config: PretrainedConfig) -> list[tuple[str, Any]]:
    return list(type(config).sub_configs.items())


def _sub(config: PretrainedConfig, name: str) -> Any:
    return getattr(config, name)


def _has(config: PretrainedConfig, name: str) -> bool:
    try:
        return hasattr(config, name)
    except AmbiguousGlobalPerLayerAttributeError:
        return True


def _settable(config: PretrainedConfig, name: str) -> bool:
    of_class = getattr(type(config), type(config).attribute_map.get(name, name), None)
    return _has(config, name) and not (isinstance(of_class, property) and of_class.fset is None)
