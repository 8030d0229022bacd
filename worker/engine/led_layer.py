"""What is known of a decoder layer of Llama's shape that runs as one function of ours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from aril.worker.engine.layer_copies import Own

if TYPE_CHECKING:
    from aril.kernels.attention import Extras
    from aril.kernels.norm import Norm
    from aril.worker.engine.forward_pass import AttentionLayout
    from aril.worker.engine.groups import LinearGroup


class Parts(NamedTuple):
    """A layer's own parts; groups have the linears side by side."""

    norm: Norm
    post_norm: Norm
    q_norm: Norm | None
    k_norm: Norm | None
    qkv: LinearGroup
    out: LinearGroup
    gate_up: LinearGroup
    down: LinearGroup
    tanh: bool  # of the gate: GELU by its approximation of that name, else SiLU


@dataclass(slots=True, eq=False)
class Layer:
    """What the function below needs to know of a layer."""

    parts: Parts
    layout: AttentionLayout
    extras: Extras
    carries: bool = False  # whether the next layer adds what the last product made
    _own: Own | None = None
    _changes: int = -1  # that there had been when `_own` was read

    def own(self) -> Own | None:
        """Return what is its own in calls of machine code; None where there are others."""
        state = self.parts.qkv.state
        if self._changes != state.changes:
            self._own, self._changes = self._read(), state.changes
        return self._own

    def _read(self) -> Own | None:
        parts, layout = self.parts, self.layout
        groups = parts.qkv, parts.out, parts.gate_up, parts.down
        if not all(group.in_machine_code for group in groups):
            return None
        norms = parts.norm, parts.post_norm, parts.q_norm, parts.k_norm
        kinds, addresses = zip(*(group.own() for group in groups), strict=True)
        tensors = [norm.weight for norm in norms if norm is not None]
        tensors += [] if self.extras.sinks is None else [self.extras.sinks]
        own = [each.data_ptr() for each in tensors]
        own += [address for each in addresses for address in each]
        if len(set(own)) != len(own):
            return None
        told = [None if norm is None else (norm.eps, norm.offset) for norm in norms]
        sight = layout.sight, layout.scale, self.extras.softcap, self.extras.sinks is None
        heads = layout.heads, layout.kv_heads, layout.head_dim
        own += [0, 0]  # of the caches, which are a step's
        return Own((kinds, tuple(told), sight, heads, parts.tanh), np.array(own))
