"""What a norm is made of, whoever computes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor


class Norm(NamedTuple):
    """RMSNorm's weight [n], and what is added to a mean square and to the weight."""

    weight: Tensor
    eps: float
    offset: float = 0.0
