"""A linear's weight in the layout that oneDNN multiplies fastest.

SmolLM2-135M's linears on 16 rows, fp32, two cores: 85 ms by `F.linear`, which reorders the weight
in each call, and 31 ms with weights laid out once (decision 031). The operators are those that
torch's own compiler emits for frozen CPU models.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from aril.worker.engine.processor import has_onednn

if TYPE_CHECKING:
    from torch import Tensor

# The rows that the layout is chosen for. From 128 on it is the best at 1 to 256 rows alike; one
# made for 16 rows takes twice the time at 4 and 16.
_ROWS = 128

_DTYPES = frozenset({torch.float32, torch.bfloat16})


class PackedWeight:
    """Weight [out, in] and bias of a linear, laid out for `__call__`."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.out_features = len(weight)
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight, _ROWS)  # noqa: SLF001  # see module
        self._bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        """Return x [..., in] times the weight, plus the bias: [..., out]."""
        if x.numel() == 0:
            return x.new_empty((*x.shape[:-1], self.out_features))
        y: Tensor = torch.ops.mkldnn._linear_pointwise(  # noqa: SLF001  # see module
            x, self._weight, self._bias, "none", [], ""
        )
        return y

    def dense(self) -> Tensor:
        """Return a plain copy of the weight [out, in], bit for bit what was packed."""
        weight: Tensor = self._weight.to_dense()
        return weight


def can_pack(weight: Tensor) -> bool:
    """Whether this build of torch packs weights of this kind."""
    return (
        weight.device.type == "cpu"
        and weight.dtype in _DTYPES
        and has_onednn()
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
    )
