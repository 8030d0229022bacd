"""A decoder layer of Llama's shape over packed rows, as one plain function.

Between the products each kernel takes the step's rows once; buffers, angles and checks are a
step's, not a layer's. The sum behind a layer's last product is made by the next one's first norm,
where `Layer.carries` says that such a layer follows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from aril.kernels.program import settle, writing_down
from aril.worker.engine.attention import IGNORED, PagedAttention, UnsupportedModelError
from aril.worker.engine.forward_pass import under_way
from aril.worker.engine.layer_copies import LayerCopies

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from torch import Tensor

    from aril.kernels.fused import FusedKernels
    from aril.kernels.norm import Norm
    from aril.worker.engine.forward_pass import AttentionLayout, ForwardPass
    from aril.worker.engine.groups import LinearGroup
    from aril.worker.engine.led_layer import Layer


class StepRows:
    """What the layers of one forward pass share: T rows, their angles, and buffers."""

    def __init__(self, context: PagedAttention, kernels: FusedKernels, x: Tensor) -> None:
        """Begin with the first layer's x [1, T, hidden]."""
        self.context, self.kernels = context, kernels
        self.shape, self.dtype = x.shape, x.dtype
        self.carried: Tensor | None = None  # [T, hidden], to be added to `shown`
        places = context.slot_mapping
        if places.shape != x.shape[1:2] or places.dtype is not torch.int64:
            raise ValueError(f"places {list(places.shape)} {places.dtype} of {x.shape[1]} rows")
        self.places = places.contiguous()
        self._highest = kernels.highest_place(places)
        self.normed, self.first, self.second = (x.new_empty(x.shape[1:]) for _ in range(3))
        self.shown = self.second[None]  # what a layer gives that carries
        self._heads: dict[tuple[int, int], tuple[Tensor, Tensor, Tensor]] = {}
        self._gated: dict[int, Tensor] = {}
        self._products: dict[int, Tensor] = {}
        self._made: Tensor | None = None  # by torch: what is written down before the next reads it
        self._program = kernels.program()
        self.copies = None if self._program is None else LayerCopies(self._program)
        self._kept: list[object] = []  # what is written down reads it
        self._given: object = None
        self._angles: tuple[Tensor, Tensor] | None = None

    def heads(self, heads: int, dim: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return buffers for queries and their output [T, heads, d], and this as [T, heads · d]."""
        found = self._heads.get((heads, dim))
        if found is None:
            q, out = (self.normed.new_empty(self.shape[1], heads, dim) for _ in range(2))
            found = self._heads[heads, dim] = q, out, out.flatten(1)
        return found

    def gated(self, width: int) -> Tensor:
        """Return a buffer [T, width] for what comes out of a gate."""
        found = self._gated.get(width)
        if found is None:
            found = self._gated[width] = self.normed.new_empty(self.shape[1], width)
        return found

    def writing_down(self) -> AbstractContextManager[None]:
        """Have calls of machine code run later, by `settle` at the latest."""
        return writing_down(self._program)

    def multiply(self, group: LinearGroup, x: Tensor) -> Tensor:
        """Return x [T, in] through a group's members: until the next product, [T, widths]."""
        if self._program is None or not group.in_machine_code:
            settle()
            with writing_down(None):
                self._made = group.compute(x)
            return self._made
        width = len(group.weight)
        found = self._products.get(width)
        if found is None:
            found = self._products[width] = self.normed.new_empty(self.shape[1], width)
        group.compute_into(found, x)
        return found

    def normed_first(self, x: Tensor, norm: Norm) -> Tensor:
        """Return the norm of rows that no layer of ours has made."""
        normed = self.kernels.rms_norm(x, norm.weight, norm.eps, offset=norm.offset)
        self._kept += x, normed  # whoever has made x lets it go before it is read
        return normed

    def angles(self, given: object) -> tuple[Tensor, Tensor] | None:
        """Return cos and sin [T, d] of what layers are given; None where it is something else."""
        if given is not self._given or given is None:
            self._given, self._angles = given, None
            if self.copies is not None:
                self.copies.forget()
            if isinstance(given, tuple) and len(given) == 2:  # noqa: PLR2004 - cos and sin
                cos, sin = given
                shape = (1, self.shape[1], cos.shape[-1])
                if cos.shape == sin.shape == shape and cos.dtype is sin.dtype is self.dtype:
                    self._angles = cos[0].contiguous(), sin[0].contiguous()
                    self._kept.append(self._angles)
        return self._angles

    def caches(self, layout: AttentionLayout) -> tuple[Tensor, Tensor]:
        """Return a layer's caches; kernels ask nobody whether these are as the layer has them."""
        k, v = self.context.k_cache[layout.layer], self.context.v_cache[layout.layer]
        blocks, page, kv_heads, dim = k.shape
        if not (
            self._highest < blocks * page
            and (kv_heads, dim) == (layout.kv_heads, layout.head_dim)
            and k.shape == v.shape
            and k.dtype is v.dtype is self.dtype
            and k.is_contiguous()
            and v.is_contiguous()
        ):
            raise ValueError(
                f"caches {list(k.shape)} {k.dtype} and {list(v.shape)} {v.dtype} for place "
                f"{self._highest} of {layout}"
            )
        return k, v

    def settle(self, x: Tensor) -> Tensor:
        """Return x [1, T, hidden] with what the layer before has left to be added, if it has.

        All that is written down is run.
        """
        if self._program is not None:
            self._program.run()
        carried = self.take(x)
        return x if carried is None else x + carried

    def take(self, x: Tensor) -> Tensor | None:
        """Return what is to be added to x, which must be what the layer before has given.

        Raises UnsupportedModelError where it is not: something stands between the two.
        """
        carried, self.carried = self.carried, None
        if carried is not None and x is not self.shown:
            raise UnsupportedModelError("a layer is not given what the one before it returned")
        return carried


def layer_forward(module: Any, hidden_states: Tensor, *more: Any, **given: Any) -> Any:
    """Do a led layer's forward; transformers' own outside of a step, and where one does not fit."""
    step = under_way()
    if step is not None and step.context.kernels is not None:
        layer: Layer = module.aril
        rows, angles = _fitting(layer, step, hidden_states, more, given)
        if angles is not None:
            return run_layer(layer, rows, hidden_states, *angles)
        if step.rows is not None:
            hidden_states = step.rows.settle(hidden_states)
    return type(module).forward(module, hidden_states, *more, **given)


def _fitting(
    layer: Layer, step: ForwardPass, x: Tensor, more: tuple[Any, ...], given: dict[str, Any]
) -> tuple[Any, tuple[Tensor, Tensor] | None]:
    """Return the step's rows, and the layer's angles; None for these where something is odd."""
    context = step.context
    if more or not isinstance(context, PagedAttention) or context.kernels is None:
        return None, None
    for name, value in given.items():
        if value is not None and value is not False and name not in IGNORED:
            return None, None
    rows: StepRows | None = step.rows
    if rows is None:
        if x.ndim != 3 or len(x) != 1 or not x.numel():  # noqa: PLR2004 - one row of T tokens
            return None, None
        rows = step.rows = StepRows(context, context.kernels, x)
    weight = layer.parts.norm.weight
    if x.shape != rows.shape or not x.dtype is rows.dtype is weight.dtype or not x.is_contiguous():
        return rows, None
    angles = rows.angles(given.get("position_embeddings"))
    if angles is None or angles[0].shape[1] != layer.layout.head_dim:
        return rows, None
    return rows, angles


def run_layer(layer: Layer, rows: StepRows, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Return the layer of x [1, T, hidden] at these angles [T, d]; see `StepRows.carried`."""
    norm, post_norm, q_norm, k_norm, qkv, out, gate_up, down, tanh = layer.parts
    layout, kernels, normed, summed = layer.layout, rows.kernels, rows.normed, rows.second
    carried = rows.take(x)
    caches = rows.caches(layout)
    copies = rows.copies
    if copies is not None and copies.copy(layer.own(), caches, carried):
        rows.carried = carried
        return rows.shown if layer.carries else rows.settle(rows.shown)
    plan = rows.context.plan(layout.sight, caches[0])
    begin = None if copies is None else copies.mark()
    with rows.writing_down():
        if carried is None:
            residual = x[0]
            normed = rows.normed_first(residual, norm)
        else:
            residual = rows.first
            kernels.add_norm(normed, residual, summed, carried, norm)
        q, attended, flat = rows.heads(layout.heads, layout.head_dim)
        mixed = rows.multiply(qkv, normed)
        kernels.place_heads_of(q, mixed, *caches, rows.places, cos, sin, q_norm, k_norm)
        kernels.attend(attended, q, *caches, plan, layout.scale, layer.extras)
        normed = rows.normed
        kernels.add_norm(normed, summed, residual, rows.multiply(out, flat), post_norm)
        both = rows.multiply(gate_up, normed)
        gated = rows.gated(both.shape[1] // 2)
        kernels.gate_halves(gated, both, tanh=tanh)
        rows.carried = rows.multiply(down, gated)
    if copies is not None and begin is not None:
        copies.keep(layer.own(), caches, begin, carried, rows.carried)
    return rows.shown if layer.carries else rows.settle(rows.shown)
