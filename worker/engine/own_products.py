"""Models that multiply queries and keys themselves, led to our attention.

Older architectures do not call transformers' attention interface. Where queries, keys and values
come into one's hands in one place, that place is led to `attention` while a context is under way;
else it does what transformers wrote, so the model's own forward stays the reference of the probe.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch

from aril.worker.engine.attention import UnsupportedModelError, attention
from aril.worker.engine.forward_pass import lead, under_way

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

_INTERFACE: Final = "transformers' attention interface, and has no adapter here"
_ALIBI: Final = "positions are a bias on its scores (ALiBi), which our attention does not have"


def lead_products(model: Any) -> None:
    """Lead each attention layer of a model without the interface to ours.

    Raises UnsupportedModelError in one line, with the class, where nothing here knows it.
    """
    kind = model.config.model_type
    if kind in {"bloom", "mpt"} or getattr(model.config, "alibi", False):
        raise UnsupportedModelError(f"{kind}: {_ALIBI}")
    found = False
    for module in model.modules():
        if known := _KNOWN.get(type(module).__name__):
            known(module, model.config)
            found = True
    if not found:
        raise UnsupportedModelError(f"{kind}: {_computing(model)} does not use {_INTERFACE}")


def _computing(model: nn.Module) -> str:
    """Name the class that attends, or the model's."""
    names = (type(module).__name__ for module in model.modules())
    return next((name for name in names if "Attention" in name), type(model).__name__)


def _lead_product(module: Any, _config: Any) -> None:
    """GPT-J, CodeGen, GPT-NeoX Japanese: `_attn` has queries and keys with their positions.

    CodeGen's come in float32.
    """

    def ours(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> tuple[Tensor, None]:
        out, _ = attention(module, q.to(v.dtype), k.to(v.dtype), v, mask)
        return out.transpose(1, 2), None

    lead(module, "_attn", ours)


def _lead_gpt_neo(module: Any, config: Any) -> None:
    """GPT-Neo: `_attn` as above; scores are not scaled, and some layers look back a window."""
    module.layer_idx = module.layer_id
    window = config.window_size if module.attention_type == "local" else None

    def ours(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> tuple[Tensor, None]:
        out, _ = attention(module, q, k, v, mask, scaling=1.0, sliding_window=window)
        return out.transpose(1, 2), None

    lead(module, "_attn", ours)


def _lead_falcon(module: Any, _config: Any) -> None:
    """Falcon: one linear for all three; keys and values once a group, not once a head."""
    group = module.num_heads // module.num_kv_heads if module.new_decoder_architecture else 1
    rotate = type(module).forward.__globals__["apply_rotary_pos_emb"]

    def ours(
        hidden_states: Tensor,
        attention_mask: Tensor | None,
        position_embeddings: tuple[Tensor, Tensor],
        **_rest: object,
    ) -> tuple[Tensor, None]:
        fused = module.query_key_value(hidden_states)
        q, k, v = (part.transpose(1, 2) for part in module._split_heads(fused))  # noqa: SLF001
        q, k = rotate(q, k[:, ::group], *position_embeddings)
        out = attention(module, q, k, v[:, ::group], attention_mask)[0]
        return module.dense(out.flatten(2)), None

    lead(module, "forward", ours)


def _lead_xglm(module: Any, _config: Any) -> None:
    """XGLM: linears of their own for each, positions are added to the embeddings."""

    def ours(
        hidden_states: Tensor, attention_mask: Tensor | None = None, **_rest: object
    ) -> tuple[Tensor, None]:
        q, k, v = (
            linear(hidden_states).unflatten(2, (module.num_heads, -1)).transpose(1, 2)
            for linear in (module.q_proj, module.k_proj, module.v_proj)
        )
        out = attention(module, q, k, v, attention_mask, scaling=module.scaling)[0]
        return module.out_proj(out.flatten(2)), None

    lead(module, "forward", ours)


def lead_places(model: Any) -> None:
    """Give Llama 4's layers without RoPE, which scale queries by position, the rows' positions.

    They count the tokens of a call.
    """
    for module in model.modules():
        places = type(module).__name__ == "Llama4TextAttention" and not module.use_rope
        if places and module.attn_temperature_tuning:
            _lead_llama4(module)


def _lead_llama4(module: Any) -> None:
    def ours(
        hidden_states: Tensor, attention_mask: Tensor | None = None, **_rest: object
    ) -> tuple[Tensor, None]:
        q, k, v = (
            linear(hidden_states).unflatten(2, (-1, module.head_dim)).transpose(1, 2)
            for linear in (module.q_proj, module.k_proj, module.v_proj)
        )
        step = under_way()
        at = None if step is None else step.positions
        at = torch.arange(q.shape[2], device=q.device) if at is None else at
        floors = torch.floor((at.float() + 1.0) / module.floor_scale)
        scales = torch.log1p(floors) * module.attn_scale + 1.0
        q = (q * scales[:, None]).to(v.dtype)
        out = attention(module, q, k, v, attention_mask, scaling=module.scaling)[0]
        return module.o_proj(out.flatten(2)), None

    lead(module, "forward", ours)


_KNOWN: Final[dict[str, Callable[[Any, Any], None]]] = {
    "CodeGenAttention": _lead_product,
    "FalconAttention": _lead_falcon,
    "GPTJAttention": _lead_product,
    "GPTNeoSelfAttention": _lead_gpt_neo,
    "GPTNeoXJapaneseAttention": _lead_product,
    "XGLMAttention": _lead_xglm,
}
