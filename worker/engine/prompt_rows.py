"""The log probabilities of one prompt's tokens, gathered as its pieces pass through the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch

from schemas import PromptLogprobs, TokenLogprobs
from worker.engine.ordered import top_ordered

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

_LOWEST: Final = torch.finfo(torch.float32).min


class PromptRows:
    """Kept as arrays, 4 bytes a number, until the answer ends."""

    __slots__ = ("_ids", "_top", "_values", "broken")

    def __init__(self, top: int) -> None:
        self._top = top
        self._values: list[Tensor] = []
        self._ids: list[Tensor] = []
        self.broken = False  # some logits were no distribution

    def add(self, logits: Tensor, next_ids: Sequence[int]) -> None:
        """Take the next places' logits, float32 [m, vocab], and the tokens [m] that come there.

        As the sampler reports them: of the model's own distribution, and a token of probability 0
        has float32's lowest number.
        """
        if not bool(logits.amax(dim=1).isfinite().all()):
            self.broken = True
            return
        raw = logits.log_softmax(dim=1)
        chosen = raw.gather(1, torch.tensor(next_ids, device=raw.device)[:, None])
        values, columns = top_ordered(raw, max(1, self._top))
        values = torch.cat([chosen, values[:, : self._top]], 1).clamp(min=_LOWEST)
        self._values.append(values.cpu())
        self._ids.append(columns[:, : self._top].to(torch.int32).cpu())

    def told(self) -> PromptLogprobs:
        """Return a row for each token, None for the first."""
        rows = zip(
            (row for part in self._values for row in part.tolist()),
            (row for part in self._ids for row in part.tolist()),
            strict=True,
        )
        return (
            None,
            *(TokenLogprobs(row[0], tuple(zip(ids, row[1:], strict=True))) for row, ids in rows),
        )
