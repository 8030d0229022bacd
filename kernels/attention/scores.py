"""Attention by its scores, in plain torch: where they are capped, or heads have sinks.

Scaled dot product attention has neither. What is made is kept small: queries are taken a few at a
time, so that a long prompt's scores never lie in memory all at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from torch import Tensor

# Scores that are held at once, 16 MiB of them in fp32; one query's, if these are more.
SCORES = 1 << 22


class Extras(NamedTuple):
    """What a layer's softmax has beside scores and mask.

    Semantics: softmax([cap(scale · q Kᵀ) + mask, sink]) [V, 0], where cap(x) = c · tanh(x / c).
    """

    softcap: float | None = None  # c; None: scores are not capped
    sinks: Tensor | None = None  # [heads], a logit that takes part and has no value; None: no sinks

    def __bool__(self) -> bool:
        """Whether there is anything."""
        return self.softcap is not None or self.sinks is not None

    def cap(self, scores: Tensor) -> Tensor:
        """Cap the scores, before they are masked."""
        return scores if self.softcap is None else torch.tanh(scores / self.softcap) * self.softcap


def attend_by_scores(  # noqa: PLR0917 - the operands, in the order of the formula
    q: Tensor, keys: Tensor, values: Tensor, mask: Tensor, scale: float, extras: Extras
) -> Tensor:
    """Attend with extras, sums in fp32 at least.

    q [n, kv_heads, group, queries, d], keys and values [n, kv_heads, length, d], mask bool, true
    where a query sees a key, as [n or 1, 1, 1, queries, length]. Returns the shape of q.
    """
    count, kv_heads, group, queries, dim = q.shape
    length = keys.shape[2]
    at_once = max(1, SCORES // max(1, count * kv_heads * group * length))
    working = torch.promote_types(q.dtype, torch.float32)
    keys, values = keys.to(working).mT, values.to(working)
    out = torch.empty_like(q)
    for start in range(0, queries, at_once):
        some = slice(start, start + at_once)
        # The heads of a group are just more queries on the same keys.
        rows = q[:, :, :, some].reshape(count, kv_heads, -1, dim).to(working)
        scores = extras.cap(rows @ keys * scale).unflatten(2, (group, -1))
        scores = scores.masked_fill(~mask[..., some, :], float("-inf"))
        if extras.sinks is not None:
            sinks = extras.sinks.to(working).view(1, kv_heads, group, 1, 1)
            scores = torch.cat([scores, sinks.expand(*scores.shape[:-1], 1)], -1)
        weights = scores.softmax(-1)[..., :length].flatten(2, 3)
        out[:, :, :, some] = (weights @ values).unflatten(2, (group, -1)).to(q.dtype)
    return out
