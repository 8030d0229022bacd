"""Finds decoder layers of Llama's shape and leads them to one function of ours, where it is proved.

Two norms, four products, a rotation, a gate and two sums: what a layer has is read from its parts,
which must be all that it has. That it does with them what ours does is shown by running both, on
random rows at positions far apart, in the layer's own weights. What differs by more than rounding
keeps its own forward, and so does each layer outside of a step.
"""

from __future__ import annotations

from itertools import pairwise
from types import MethodType
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import nn

from aril.kernels.attention import Extras
from aril.kernels.norm import Norm
from aril.worker.engine.attention import LayoutRecorder, PagedAttention
from aril.worker.engine.forward_pass import attending
from aril.worker.engine.groups import LoraLinear
from aril.worker.engine.layer_forward import layer_forward
from aril.worker.engine.led_layer import Layer, Parts
from aril.worker.engine.row_kernels import GATES, alike, drawn, result

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from aril.worker.engine.config import Backend
    from aril.worker.engine.forward_pass import AttentionContext, AttentionLayout
    from aril.worker.engine.groups import LinearGroup

_ROWS: Final = 5
_PAGE: Final = 2  # so that they lie in several blocks
# What a layer adds to its input must show beside it: inputs are normed, so they may be small.
_SIZE: Final = 0.05
# As in row_kernels.py, of a layer's whole way; seen in tiny models: 6e-7, 2e-2 and 6e-3.
_ROUNDING: Final = {torch.float32: 1e-4, torch.bfloat16: 6e-2, torch.float16: 2e-2}
# Of a second run's gates: some models clamp them, which shows in large ones only.
_LARGER: Final = 30.0
_FARTHEST: Final = 6  # power of ten: some scale by position, and by little near the beginning


def lead_layers(model: Any, backend: Backend) -> list[Any]:
    """Lead what can be led, in a model whose linears are in groups; return those layers.

    They are proved where the model lies, by the kernels that the backend has there. A layer that is
    followed by another one leaves its last sum to that one.
    """
    led = []
    with torch.inference_mode():
        for stack in model.modules():
            if not isinstance(stack, nn.ModuleList):
                continue
            found: list[tuple[Any, Layer | None]] = [
                (each, _proved(each, backend)) for each in stack
            ]
            for module, layer in found:
                if layer is not None:
                    module.aril = layer
                    module.forward = MethodType(layer_forward, module)
                    led.append(module)
            for (_, layer), (_, follower) in pairwise(found):
                if layer is not None and follower is not None:
                    layer.carries = True
    return led


def let_go(layers: Sequence[Any]) -> None:
    """Give layers their own forward back."""
    for module in layers:
        del module.forward, module.aril


def _proved(module: Any, backend: Backend) -> Layer | None:
    """Return what is known of a layer; None for one of another kind."""
    parts, dim = _parts(module), getattr(getattr(module, "self_attn", None), "head_dim", None)
    if parts is None or not isinstance(dim, int) or "forward" in vars(module):
        return None
    x = _SIZE * drawn(1, _ROWS, len(parts.norm.weight), like=parts.norm.weight)
    cos, sin = drawn(2, 1, _ROWS, dim, like=x)
    recorder = LayoutRecorder()
    expected = _run(module.forward, recorder, x, (cos, sin))
    if not isinstance(expected, torch.Tensor) or len(recorder.layouts) != 1:
        return None
    (layout,) = recorder.layouts.values()
    if layout.head_dim != dim or not _agree(parts, layout):
        return None
    sinks = None if layout.sinks is None else layout.sinks.float().contiguous()
    layer = Layer(parts, layout, Extras(layout.softcap, sinks))
    if not _same(module, layer, x, (cos, sin), backend):
        return None
    weight, offset = parts.post_norm.weight, parts.post_norm.offset
    kept = weight.data
    weight.data = (kept + offset) * _LARGER - offset
    same = _same(module, layer, x, (cos, sin), backend)
    weight.data = kept
    return layer if same else None


def _same(
    module: Any, layer: Layer, x: Tensor, angles: tuple[Tensor, Tensor], backend: Backend
) -> bool:
    """Whether only rounding tells what both add to x apart: beside x a part might be lost."""
    expected = _run(module.forward, LayoutRecorder(), x, angles)
    module.aril = layer
    context = _paged(layer.layout, x, backend)
    ours = _run(MethodType(layer_forward, module), context, x, angles)
    del module.aril
    if not isinstance(expected, torch.Tensor) or not isinstance(ours, torch.Tensor):
        return False
    return alike(expected - x, ours - x, _ROUNDING)


def _parts(module: Any) -> Parts | None:
    """Read a layer's parts; None where one is missing, unknown, or has more than these."""
    attention, mlp = getattr(module, "self_attn", None), getattr(module, "mlp", None)
    qkv = _group(attention, "q_proj", "k_proj", "v_proj") or _group(attention, "qkv_proj")
    out = _group(attention, "o_proj")
    gate_up = _group(mlp, "gate_proj", "up_proj") or _group(mlp, "gate_up_proj")
    down = _group(mlp, "down_proj")
    norms = (
        *(getattr(module, name, None) for name in ("input_layernorm", "post_attention_layernorm")),
        *(getattr(attention, name, None) for name in ("q_norm", "k_norm")),
    )
    norm, post_norm, q_norm, k_norm = map(_norm, norms)
    gate = getattr(mlp, "act_fn", None) or getattr(mlp, "activation_fn", None)
    tanh = GATES.get(type(gate).__name__)
    if norm is None or post_norm is None or tanh is None:
        return None
    if qkv is None or out is None or gate_up is None or down is None:
        return None
    parts = Parts(norm, post_norm, q_norm, k_norm, qkv, out, gate_up, down, tanh)
    known = [each for each in norms if _norm(each) is not None]
    known += [member for group in (qkv, out, gate_up, down) for member in group.members]
    for part in module.modules():
        own = next(part.parameters(recurse=False), None)
        if own is not None and all(part is not each for each in known):
            return None
    return parts


def _group(parent: Any, *names: str) -> LinearGroup | None:
    """Return the group of exactly these linears."""
    members = tuple(getattr(parent, name, None) for name in names)
    if not all(isinstance(member, LoraLinear) for member in members):
        return None
    group: LinearGroup = members[0].group  # type: ignore[union-attr]  # as said above
    return group if group.members == members else None


def _norm(module: Any) -> Norm | None:
    """Return a norm that row_kernels.py has led."""
    found = getattr(module, "aril", None)
    return None if found is None else Norm(module.weight, found.eps, found.offset)


def _agree(parts: Parts, layout: AttentionLayout) -> bool:
    """Whether the linears' widths are those of such heads."""
    dim = layout.head_dim
    width, kv_width = layout.heads * dim, layout.kv_heads * dim
    widths = width, kv_width, kv_width
    return (
        dim % 2 == 0
        and parts.qkv.widths in {widths, (sum(widths),)}
        and parts.out.in_features == width
        and sum(parts.gate_up.widths) == 2 * parts.down.in_features
        and all(norm is None or len(norm.weight) == dim for norm in (parts.q_norm, parts.k_norm))
    )


def _run(
    forward: Callable[..., Any], context: AttentionContext, x: Tensor, angles: tuple[Tensor, Tensor]
) -> Any:
    positions = torch.logspace(0, _FARTHEST, _ROWS).long().to(x.device) - 1
    with attending(context, positions):
        return result(
            lambda: forward(
                x,
                attention_mask=None,
                position_ids=positions[None],
                past_key_values=None,
                use_cache=False,
                position_embeddings=angles,
            )
        )


def _paged(layout: AttentionLayout, x: Tensor, backend: Backend) -> PagedAttention:
    """Make a context of one sequence, over a cache of its own whose blocks are in no order."""
    blocks = -(-_ROWS // _PAGE)
    k, v = x.new_zeros(2, blocks, _PAGE, layout.kv_heads, layout.head_dim)
    table = torch.arange(blocks, dtype=torch.int32).flip(0)
    places = torch.arange(_ROWS)
    return PagedAttention(
        k_cache={layout.layer: k},
        v_cache={layout.layer: v},
        slot_mapping=(table[places // _PAGE].long() * _PAGE + places % _PAGE).to(x.device),
        block_table=table[None].to(x.device),
        cu_q=torch.tensor([0, _ROWS], dtype=torch.int32).to(x.device),
        kv_lens=torch.tensor([_ROWS], dtype=torch.int32).to(x.device),
        backend=backend,
    )
