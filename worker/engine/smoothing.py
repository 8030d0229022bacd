"""Factors that make rows fit for eight bits: a few columns of them are far larger than the rest.

A row's scale goes by its largest number, so a column that is always large leaves the others few
steps. SmoothQuant (arXiv 2211.10438) divides such columns, and multiplies the weight's by the same,
before both are rounded. How large columns get is measured once, on a text, and not on the batch: a
tenant's numbers do not hang on the rows beside them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from aril.worker.engine.model import Backbone

_STRENGTH: Final = 0.5  # SmoothQuant's alpha: the share of the difficulty that weights take over
_PIECE: Final = 128  # tokens that are computed together
_QUARTERS: Final = torch.tensor([2.0 ** (each / 4) for each in range(4)])
_LEAST: Final = 1e-4  # of the largest column: what was small on one text may not be on another


def column_maxima(backbone: Backbone, linears: Sequence[Any], text: str) -> list[Tensor]:
    """Return the largest size that each column of a linear's input had over a text, float32 [in].

    The model's own forward, a piece of the text at a time.
    """
    maxima = [torch.zeros(linear.weight.shape[1]) for linear in linears]

    def note(at: int, x: Tensor) -> None:
        found = x.detach().reshape(-1, x.shape[-1]).abs().amax(0).float()
        maxima[at] = torch.maximum(maxima[at], found)

    hooks = [
        linear.register_forward_pre_hook(lambda _module, given, at=at: note(at, given[0]))
        for at, linear in enumerate(linears)
    ]
    ids = torch.tensor(backbone.tokenizer.encode(text))
    for piece in ids.split(_PIECE):
        backbone.plain_forward(piece)
    for hook in hooks:
        hook.remove()
    return maxima


def smoothing_factors(largest: Tensor, weight: Tensor) -> Tensor:
    """Return what x's columns are multiplied by, float32 [in], for a weight [out, in].

    Powers of 2^(1/4), so that workers whose sums differ by a rounding find the same ones. Where the
    text made numbers that are not finite all are 1.
    """
    columns = weight.abs().amax(0).float()
    if not (largest.isfinite().all() and columns.isfinite().all()):
        return torch.ones_like(largest)
    rows, columns = (each.clamp(min=float(each.max()) * _LEAST) for each in (largest, columns))
    powers = (1 - _STRENGTH) * columns.log2() - _STRENGTH * rows.log2()
    if not powers.isfinite().all():  # all of the rows, or of the weight, are 0
        return torch.ones_like(largest)
    quarters = (4 * powers).round().to(torch.int64)
    return torch.ldexp(_QUARTERS[quarters % 4], quarters // 4)
