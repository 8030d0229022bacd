"""Adapters' own vectors for some tokens, in place of the embeddings' and the output module's.

Both modules stay as they are; what they give is mended, for the rows of the adapters that have
trained tokens and no others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
import torch
from torch.nn.functional import linear, pad

from aril.worker.engine.block_products import in_blocks
from aril.worker.engine.one_copy import one_copy

if TYPE_CHECKING:
    from torch import Tensor

    from aril.worker.adapters.trained_tokens import TokenRows
    from aril.worker.engine.groups import StepState

# Products with fewer columns are not alike for all rows on some CPUs: decision 034.
_WHOLE_COLUMNS = 8


class DeviceRows(NamedTuple):
    """An adapter's tokens on the device."""

    ids: Tensor  # int64 [tokens]
    values: Tensor  # [tokens, features], in the backbone's type

    @classmethod
    def of(cls, rows: TokenRows | None, device: torch.device, dtype: torch.dtype) -> Self | None:
        """Copy an adapter's tokens to the device; None for none."""
        if rows is None:
            return None
        (ids,) = one_copy([np.array(rows.ids, np.int64)], device)
        # What is there already is a part of the whole adapter's block, which is let go.
        return cls(ids, rows.values.to(device, dtype, copy=rows.values.is_cuda))


class TokenTable:
    """One of the two modules, and the slots whose adapters have vectors of their own for it."""

    def __init__(self, module: Any, state: StepState) -> None:
        """Mend what `module` gives, whose rows are those of the state's plan."""
        module.register_forward_hook(self._mend)
        self._state = state
        self._slots: dict[int, DeviceRows] = {}

    def put(self, slot: int, rows: DeviceRows | None) -> None:
        """Put an adapter's vectors into a slot, or none, in place of what was there."""
        self._slots.pop(slot, None)
        if rows is not None:
            self._slots[slot] = rows

    def _mend(self, module: Any, args: tuple[Tensor, ...], y: Tensor) -> Tensor:
        raise NotImplementedError

    def _segments(self) -> list[tuple[slice | Tensor, DeviceRows]]:
        if not self._slots:
            return []
        return [
            (segment.rows, self._slots[segment.slot])
            for plan in self._state.plans
            for segment in plan.segments
            if segment.slot in self._slots
        ]


class InputTable(TokenTable):
    """The embeddings."""

    def _mend(self, module: Any, args: tuple[Tensor, ...], y: Tensor) -> Tensor:
        """Return y [1, T, features] with the own vectors of tokens args[0] [1, T]."""
        scale = getattr(module, "embed_scale", 1.0)  # Gemma's; PEFT knows it by this name too
        for rows, own in self._segments():
            ids = args[0].view(-1)[rows]
            same = ids[:, None] == own.ids
            values = own.values[same.int().argmax(dim=1)] * scale
            flat = y.view(-1, y.shape[-1])
            flat[rows] = torch.where(same.any(dim=1)[:, None], values.to(y.dtype), flat[rows])
        return y


class OutputTable(TokenTable):
    """The linear that makes the logits."""

    def _mend(self, _module: Any, args: tuple[Tensor, ...], y: Tensor) -> Tensor:
        """Return y [1, n, vocab] with the logits of trained tokens by their own vectors."""
        x = args[0].reshape(-1, args[0].shape[-1])
        for rows, own in self._segments():
            logits = self._multiply(x[rows], own.values)
            flat = y.view(-1, y.shape[-1])
            mended = flat[rows]
            mended[:, own.ids] = logits
            flat[rows] = mended
        return y

    def _multiply(self, x: Tensor, values: Tensor) -> Tensor:
        if not self._state.invariant:
            return linear(x, values)
        whole = pad(values, (0, 0, 0, -len(values) % _WHOLE_COLUMNS))
        return in_blocks(lambda block: linear(block, whole), x)[:, : len(values)]
