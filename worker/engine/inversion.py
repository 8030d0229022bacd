"""Rows' distributions inverted on a device: nothing is read back, no shape depends on data.

The same tokens, bit for bit, as `aril.worker.engine.selection` finds on a CPU: sums are exact.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from aril.worker.engine.masses import whole
from aril.worker.engine.ordered import top_keyed

if TYPE_CHECKING:
    from torch import Tensor


class Draws(NamedTuple):
    """How each of m rows is drawn, [m]; what is off has the value that cuts nothing.

    As arrays on the host, then as tensors where the logits are.
    """

    temperature: Any  # float64, as all but top_k
    min_p: Any
    top_k: Any  # int64; the vocabulary's size is none
    top_p: Any
    uniform: Any  # below 1


def invert(logits: Tensor, draws: Draws, size: int) -> Tensor:
    """Return the token [m] at which each row's cumulative distribution passes its number.

    logits: float32 [m, vocab]. No row may keep more than `size` tokens by its top_k. Tokens count
    in descending order of logit over temperature, equal ones by id. Rows that are no distribution
    get some token.
    """
    vocab = logits.shape[1]
    scaled = logits - logits.amax(dim=1, keepdim=True)
    scaled = scaled / draws.temperature.float()[:, None]
    p = scaled.softmax(dim=1)
    if size < vocab:
        ids = top_keyed(scaled, size)
    else:
        ids = scaled.sort(dim=1, descending=True, stable=True).indices
    sums = whole(p.gather(1, ids).double()).cumsum(dim=1)
    p64 = p.double()
    likely = p64 >= (draws.min_p * p64.amax(dim=1))[:, None]
    capped = draws.top_k < likely.sum(dim=1)
    left = torch.where(
        capped,
        _at(sums, draws.top_k - 1),
        whole(p64).mul_(likely).sum(dim=1),
    )
    # All tokens have a mass of 1, whatever rounding makes of their sum.
    cut = capped | (draws.min_p > 0)
    mass = left.masked_fill(~cut, 1.0)
    narrowed = draws.top_p < 1
    mass = torch.where(narrowed, _at(sums, _search(sums, draws.top_p * mass, right=False)), mass)
    goal, total = draws.uniform * mass, sums[:, -1]
    beyond = ~(cut | narrowed) & (goal >= total)
    goal = torch.where(beyond, draws.uniform * total, goal)
    place = _search(sums, goal, right=True).clamp(max=ids.shape[1] - 1)
    return ids.gather(1, place[:, None])[:, 0]


def _at(sums: Tensor, place: Tensor) -> Tensor:
    return sums.gather(1, place.clamp(max=sums.shape[1] - 1)[:, None])[:, 0]


def _search(sums: Tensor, goal: Tensor, *, right: bool) -> Tensor:
    """How many of each row's sums are below a mass, or with `right` equal to it."""
    return torch.searchsorted(sums, goal[:, None], right=right)[:, 0]
