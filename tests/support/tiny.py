"""Tiny random models and adapters, made in a folder in about a second: what the engine's tests run.

The weights are random but not small: logits spread over several units, so that a greedy choice is
rarely a near tie and an adapter visibly changes the answer.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Literal

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GptOssConfig,
    GptOssForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from transformers.utils import logging as transformers_logging

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

Architecture = Literal["llama", "qwen2", "qwen3", "gemma", "gemma2", "gpt_oss", "gpt2", "mixtral"]

ALL_LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")

SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CORPUS = (
    "the pomegranate keeps many seeds in one fruit and the aril carries each of them",
    "a worker takes the prompts of many tenants and streams the tokens back to each",
    "what is the capital of France? the capital of France is Paris, said the captain",
    "one two three four five six seven eight nine ten; 0 1 2 3 4 5 6 7 8 9 10 11 12",
    "Grüße aus Köln, naïve café, 東京 and 🙂: characters of more than one byte",
)
INITIAL_SPREAD = (
    0.25  # standard deviation of the weights: top-2 logit gaps of about 0.5 at hidden 64
)


def make_tokenizer(vocab_size: int = 384) -> PreTrainedTokenizerFast:
    """Byte-level BPE over a few sentences, with the chat tokens and template of ChatML."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[AddedToken(token, special=True) for token in SPECIAL_TOKENS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",  # noqa: S106  # a chat token, no password
        pad_token="<|endoftext|>",  # noqa: S106  # same
        bos_token="<|im_start|>",  # noqa: S106  # same
        chat_template=CHAT_TEMPLATE,
    )


def make_tiny_model(
    path: Path,
    arch: Architecture = "llama",
    seed: int = 0,
    **overrides: Any,
) -> Path:
    """Save a random causal LM with its tokenizer into `path` and return it.

    Two layers, hidden 64, 4 heads, 2 KV heads, fp32. `overrides` are fields of the architecture's
    configuration. "gemma" alternates a sliding window of 8 with full attention, and so do "gemma2",
    which caps its scores, and "gpt_oss", which has sinks and experts; "qwen2" has biases at q, k
    and v; "gpt2" has learnt positions and its linears' weights as [in, out]. Biases and sinks are
    random too, and large.
    """
    tokenizer = make_tokenizer()
    fields: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 512,
        "tie_word_embeddings": False,
        "initializer_range": INITIAL_SPREAD,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "dtype": "float32",
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _BUILDERS[arch](fields, overrides)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.endswith((".bias", ".sinks")):
                    parameter.normal_()
    transformers_logging.disable_progress_bar()
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def make_tiny_experts(path: Path, seed: int = 0, **overrides: Any) -> Path:
    """Save a random Mixtral, whose experts are one tensor a layer, as `make_tiny_model` does."""
    own = {"num_local_experts": 4, "num_experts_per_tok": 2, "intermediate_size": 96}
    return make_tiny_model(path, "mixtral", seed, **(own | overrides))


def make_tiny_adapter(  # the order of PEFT's own parameters
    path: Path,
    model_path: Path,
    rank: int = 8,
    alpha: float = 16,
    targets: Sequence[str] = ALL_LINEARS,
    rslora: bool = False,
    seed: int = 0,
    **overrides: Any,
) -> Path:
    """Save a random LoRA adapter of the model in PEFT's own format into `path` and return it.

    Both A and B are random, so that the adapter is not a no-op, and so are the lengths that DoRA
    gives the rows. `overrides` are fields of `peft.LoraConfig` (rank_pattern, use_dora, ...).
    """
    from peft import LoraConfig, get_peft_model  # noqa: PLC0415  # slow
    from transformers import AutoModelForCausalLM  # noqa: PLC0415  # same

    transformers_logging.disable_progress_bar()
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # PEFT still reads a property that transformers has renamed.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", append=False)
        warnings.filterwarnings("ignore", message="Setting `save_embedding_layers`", append=False)
        # PEFT takes B's biases for tensors that were cut.
        warnings.filterwarnings("ignore", message=".*have invalid shape", append=False)
        torch.manual_seed(seed)
        config = LoraConfig(
            r=rank,
            lora_alpha=alpha,
            target_modules=list(targets),
            use_rslora=rslora,
            init_lora_weights=False,
            task_type="CAUSAL_LM",
            **overrides,
        )
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(model_path), config)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_A" in name or "lora_B" in name:
                    parameter.normal_(std=parameter.shape[-1] ** -0.5)
                elif "trainable_tokens_delta" in name:
                    parameter.add_(torch.randn_like(parameter) * 0.5)
                elif "lora_magnitude_vector" in name:
                    parameter.mul_(torch.empty_like(parameter).uniform_(0.5, 1.5))
        model.save_pretrained(path)
    return path


def _llama(fields: dict[str, Any], overrides: dict[str, Any]) -> PreTrainedModel:
    return LlamaForCausalLM(LlamaConfig(**(fields | overrides)))


def _qwen2(fields: dict[str, Any], overrides: dict[str, Any]) -> PreTrainedModel:
    return Qwen2ForCausalLM(Qwen2Config(**(fields | overrides)))


def _qwen3(fields: dict[str, Any], overrides: dict[str, Any]) -> PreTrainedModel:
    return Qwen3ForCausalLM(Qwen3Config(**(fields | overrides)))


def _gemma2(fields: dict[str, Any], overrides: dict[str, Any]) -> PreTrainedModel:
    gemma = {
        "layer_types": ["sliding_attention", "full_attention"],
        "sliding_window": 8,
        "query_pre_attn_scalar": 16,
        "attn_logit_softcapping": 2.0,  # small, so that random scores reach it
    }
    return Gemma2ForCausalLM(Gemma2Config(**(fields | gemma | overrides)))


def _gpt_oss(fields: dict[str, Any], overrides: dict[str, Any]) -> PreTrainedModel:
    own = {
        "layer_types": ["sliding_attention", "full_attention"],
        "sliding_window": 8,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    }
    return GptOssForCausalLM(GptOssConfig(**(fields | own | overrides)))


def _mixtral(fields: dict[str, Any], overrides: dict[str, Any]) -> PreTrainedModel:
    return MixtralForCausalLM(MixtralConfig(**(fields | overrides)))


def _gemma(fields: dict[str, Any], overrides: dict[str, Any]) -> PreTrainedModel:
    gemma = {
        "layer_types": ["sliding_attention", "full_attention"],
        "sliding_window": 8,
        "query_pre_attn_scalar": 16,
    }
    return Gemma3ForCausalLM(Gemma3TextConfig(**(fields | gemma | overrides)))


def _gpt2(fields: dict[str, Any], overrides: dict[str, Any]) -> PreTrainedModel:
    names = {
        "hidden_size": "n_embd",
        "num_hidden_layers": "n_layer",
        "num_attention_heads": "n_head",
        "max_position_embeddings": "n_positions",
    }
    other = {"intermediate_size", "num_key_value_heads", "head_dim"}  # set by the others
    given = {names.get(name, name): value for name, value in fields.items() if name not in other}
    return GPT2LMHeadModel(GPT2Config(**(given | overrides)))


_BUILDERS = {
    "llama": _llama,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "gemma": _gemma,
    "gemma2": _gemma2,
    "gpt_oss": _gpt_oss,
    "gpt2": _gpt2,
    "mixtral": _mixtral,
}
