"""A matrix product in float32 by the library that is fastest at it on this machine.

torch multiplies by Intel's MKL, which does not take AVX-512 on an AMD processor that has it;
oneDNN, in the same wheel, does (decision 068).
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


def multiply(x: Tensor, weight: Tensor) -> Tensor:
    """Return x [m, k] times weightᵀ, weight [n, k] of either order in memory: [m, n].

    oneDNN keeps a kernel for each shape it has met: callers bring few of them.
    """
    if x.dtype is torch.float32 and x.is_cpu and len(x) and has_onednn():
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")  # noqa: SLF001  # what torch's own compiler emits
        return y
    return x @ weight.T


@cache
def has_onednn() -> bool:
    """Whether this build of torch has oneDNN's linear, which its own compiler emits on CPUs."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
