"""Where a Hugging Face model's attention layers hand their queries, keys and values to us.

The registered function below gives each layer's tensors to the context of the forward pass under
way.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import pad
from transformers import AttentionInterface

from aril.kernels.attention import (
    Extras,
    Sight,
    attend_by_scores,
    make_host_plan,
    paged_attention,
    store_kv,
)
from aril.kernels.fused import fused_kernels
from aril.worker.engine.forward_pass import AttentionLayout, under_way

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from aril.kernels.fused import FusedKernels
    from aril.worker.engine.config import Backend

IMPLEMENTATION = "aril_paged"

# Arguments that carry no meaning for us: positions are already rotated into queries and keys, a
# cache is never used, dropout is off in eval mode, and attention weights are never asked for.
IGNORED = frozenset(
    {
        "position_ids",
        "position_embeddings",
        "use_cache",
        "dropout",
        "output_attentions",
        "output_hidden_states",
        "return_dict",
        "cache_position",
        "logits_to_keep",
    }
)


class UnsupportedModelError(ValueError):
    """This model cannot be served; the message is one line that says which feature is missing."""


class PagedAttention:
    """Context of one step: new keys and values go into the paged cache, then all rows attend.

    `k_cache` and `v_cache` per layer [blocks, block_size, kv_heads, d]; `slot_mapping` [T] int64 is
    the place of each token in the cache (block * block size + offset); `block_table` [rows,
    max_blocks] int32; `cu_q` [rows + 1] int32 delimits the rows in T; `kv_lens` [rows] int32 counts
    the tokens of each row's sequence in the cache, this step's included. `invariant` gives a row
    the same bits whatever rows are beside it.
    """

    def __init__(
        self,
        *,
        k_cache: Mapping[int, Tensor],
        v_cache: Mapping[int, Tensor],
        slot_mapping: Tensor,
        block_table: Tensor,
        cu_q: Tensor,
        kv_lens: Tensor,
        backend: Backend = "auto",
        invariant: bool = False,
    ) -> None:
        self.k_cache, self.v_cache = k_cache, v_cache
        self.slot_mapping = slot_mapping
        self.block_table = block_table
        self.cu_q, self.kv_lens = cu_q, kv_lens
        self.backend = backend
        self.invariant = invariant
        cache = next(iter(k_cache.values()))
        self.kernels = fused_kernels(backend, cache.device, cache.dtype)
        self._plans: dict[Sight, Any] = {}

    def attend(self, layout: AttentionLayout, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Store the rows' keys and values, then attend; see AttentionContext."""
        k_cache, v_cache = self.k_cache[layout.layer], self.v_cache[layout.layer]
        store_kv(k, v, k_cache, v_cache, self.slot_mapping, backend=self.backend)
        return paged_attention(
            q,
            k_cache,
            v_cache,
            self.block_table,
            self.cu_q,
            self.kv_lens,
            scale=layout.scale,
            window=layout.window,
            chunk=layout.chunk,
            softcap=layout.softcap,
            sinks=layout.sinks,
            backend=self.backend,
            invariant=self.invariant,
            plan=self.plan(layout.sight, k_cache) if self._on_host else None,
        )

    @property
    def _on_host(self) -> bool:
        """Whether a path runs that reads the lengths on the host: once is enough."""
        return self.backend != "triton" and not self.cu_q.is_cuda

    def plan(self, sight: Sight, cache: Tensor) -> Any:
        """Return what layers of one sight share; made for the first of them."""
        plan = self._plans.get(sight)
        if plan is None:
            make = partial(make_host_plan, dtype=cache.dtype, backend=self.backend)
            plan = self._plans[sight] = (self.kernels.make_plan if self.kernels else make)(
                self.block_table,
                self.cu_q,
                self.kv_lens,
                block_size=cache.shape[1],
                sight=sight,
                invariant=self.invariant,
            )
        return plan


class LayoutRecorder:
    """Context that notes the layout of each layer, for one sequence without a cache."""

    kernels: FusedKernels | None = None  # a model is looked at as it is

    def __init__(self) -> None:
        self.layouts: dict[int, AttentionLayout] = {}

    def attend(self, layout: AttentionLayout, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Note the layout and attend within the one sequence."""
        if layout.layer in self.layouts:
            raise UnsupportedModelError(
                f"layer {layout.layer} attends twice, a cache has one entry"
            )
        self.layouts[layout.layer] = layout
        position = torch.arange(len(q), device=q.device)
        query = position[:, None]
        visible = (position <= query) & (position >= layout.sight.first(query))
        out = attend_by_scores(
            q.transpose(0, 1).unflatten(0, (layout.kv_heads, -1))[None],
            k.transpose(0, 1)[None],
            v.transpose(0, 1)[None],
            visible[None, None, None],
            layout.scale,
            Extras(layout.softcap, layout.sinks),
        )
        return out[0].flatten(0, 1).transpose(0, 1).contiguous()  # some models take it by `view`


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    is_causal: bool | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **rest: Any,
) -> tuple[Tensor, None]:
    """Attend packed rows: query [1, heads, T, d], key and value [1, kv_heads, T, d].

    Returns [1, T, heads, d]. Raises UnsupportedModelError for an argument that would change the
    result and that we do not implement.
    """
    step = under_way()
    if step is None:
        raise RuntimeError("a model's attention was called outside of `attending`")
    for name, given in rest.items():
        if name not in IGNORED and given is not None and given is not False:
            raise UnsupportedModelError(f"attention argument {name!r} is not implemented")
    if attention_mask is not None:
        raise UnsupportedModelError("attention argument 'attention_mask' is not implemented")
    if is_causal is False or not getattr(module, "is_causal", True):
        raise UnsupportedModelError("attention that is not causal is not implemented")
    if query.shape[2] != key.shape[2]:
        raise UnsupportedModelError(f"a layer attends for {query.shape[2]} of {key.shape[2]} rows")
    q, k, v = query[0].transpose(0, 1), key[0].transpose(0, 1), value[0].transpose(0, 1)
    width = max(k.shape[2], v.shape[2])
    layout = AttentionLayout(
        layer=int(module.layer_idx),  # type: ignore[arg-type]  # an int by transformers' convention
        heads=q.shape[1],
        kv_heads=k.shape[1],
        head_dim=width,
        scale=q.shape[2] ** -0.5 if scaling is None else float(scaling),
        window=sliding_window,
        chunk=_chunk(module),
        softcap=softcap,
        sinks=s_aux,
    )
    out = step.context.attend(layout, *(_widened(each, width) for each in (q, k, v)))
    if v.shape[2] < width:
        out = out[..., : v.shape[2]].contiguous()
    return out.unsqueeze(0), None


def _chunk(module: Any) -> int | None:
    """Return the chunk of a layer of Llama 4: its mask has it, and no argument tells."""
    config: Any = getattr(module, "config", None)
    kinds = getattr(config, "layer_types", None) or ()
    if module.layer_idx < len(kinds) and kinds[module.layer_idx] == "chunked_attention":
        return int(config.attention_chunk_size)
    return None


def _widened(rows: Tensor, width: int) -> Tensor:
    """Fill [T, heads, d] up with zeros, which add nothing to scores and are cut off from values.

    The cache has one width for keys and values; where a model's differ (DeepSeek) it costs memory.
    """
    return rows if rows.shape[2] == width else pad(rows, (0, width - rows.shape[2]))


# Transformers' registries are global by design: this adds one name, and no mask function, so that
# models under it build no mask. Registering again is harmless.
AttentionInterface.register(IMPLEMENTATION, attention)
