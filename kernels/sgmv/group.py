"""A fused group of linears, and what an adapter brings for each of them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


@dataclass(frozen=True, slots=True)
class LoraPair:
    """One linear's LoRA: `a` [r, in], `b` [out, r] and the scale of their product.

    With DoRA also its `gain` [out], see gains.py, and what is added beside, `bias` [out];
    `scaled_bias` [out] is the part of it that a row's scale scales, see biases.py.
    """

    a: Tensor
    b: Tensor
    scale: float
    gain: Tensor | None = None
    bias: Tensor | None = None
    scaled_bias: Tensor | None = None


class GroupShape(NamedTuple):
    """A fused group: linears that read the same x; their outputs lie side by side in y."""

    in_features: int
    widths: tuple[int, ...]
    max_rank: int

    @property
    def offsets(self) -> tuple[int, ...]:
        """Where each linear's columns begin in y."""
        return tuple(accumulate(self.widths[:-1], initial=0))

    def check(self, pairs: Sequence[LoraPair | None]) -> None:
        """Raise `ValueError` when the pairs don't fit the group."""
        if len(pairs) != len(self.widths):
            raise ValueError(f"the group has {len(self.widths)} linears, got {len(pairs)} pairs")
        for index, (pair, width) in enumerate(zip(pairs, self.widths, strict=True)):
            if pair is None:
                continue
            rank = pair.a.shape[0]
            if pair.a.shape != (rank, self.in_features) or pair.b.shape != (width, rank):
                raise ValueError(
                    f"linear {index}: A {tuple(pair.a.shape)} and B {tuple(pair.b.shape)} don't "
                    f"fit [r, {self.in_features}] and [{width}, r]"
                )
            if not 1 <= rank <= self.max_rank:
                raise ValueError(f"linear {index}: rank {rank} is not in 1..{self.max_rank}")
            vectors = (("gain", pair.gain), ("bias", pair.bias), ("bias", pair.scaled_bias))
            for name, vector in vectors:
                if vector is not None and vector.shape != (width,):
                    raise ValueError(
                        f"linear {index}: {name} {tuple(vector.shape)} doesn't fit [{width}]"
                    )
