"""The log probabilities of one prompt's tokens, gathered as its pieces pass through the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from aril.schemas import PromptLogprobs, TokenLogprobs
from aril.worker.engine.one_copy import one_copy
from aril.worker.engine.ordered import top_keyed, top_ordered

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

_LOWEST: Final = torch.finfo(torch.float32).min


class PromptRows:
    """Kept as arrays, 4 bytes a number, until the answer ends.

    What was computed on a device stays there until somebody asks, and is read at once then.
    """

    __slots__ = ("_broken", "_ids", "_top", "_unread", "_values")

    def __init__(self, top: int) -> None:
        self._top = top
        self._values: list[Tensor] = []
        self._ids: list[Tensor] = []
        self._unread: list[Tensor] = []
        self._broken = False

    @property
    def broken(self) -> bool:
        """Whether some logits were no distribution."""
        self._read()
        return self._broken

    @broken.setter
    def broken(self, found: bool) -> None:
        self._broken = found

    def add(self, logits: Tensor, next_ids: Sequence[int]) -> None:
        """Take the next places' logits, float32 [m, vocab], and the tokens [m] that come there.

        As the sampler reports them: of the model's own distribution, and a token of probability 0
        has float32's lowest number.
        """
        on_host = logits.device.type == "cpu"
        finite = logits.amax(dim=1).isfinite()
        if on_host and not bool(finite.all()):
            self._broken = True
            return
        raw = logits.log_softmax(dim=1)
        (ids,) = one_copy([np.array(next_ids, np.int64)], raw.device)
        most = min(max(1, self._top), raw.shape[1])
        columns = top_ordered(raw, most)[1] if on_host else top_keyed(raw, most)
        columns = columns[:, : self._top]
        values = torch.cat([raw.gather(1, ids[:, None]), raw.gather(1, columns)], 1)
        values = values.clamp(min=_LOWEST)
        self._unread.append(torch.cat([values.double(), columns.double(), finite[:, None]], 1))
        if on_host:
            self._read()

    def _read(self) -> None:
        if not self._unread:
            return
        whole = torch.cat(self._unread).cpu()
        self._unread.clear()
        self._values.append(whole[:, : 1 + self._top].float())
        self._ids.append(whole[:, 1 + self._top : -1].to(torch.int32))
        self._broken |= not bool(whole[:, -1].all())

    def told(self) -> PromptLogprobs:
        """Return a row for each token, None for the first."""
        self._read()
        rows = zip(
            (row for part in self._values for row in part.tolist()),
            (row for part in self._ids for row in part.tolist()),
            strict=True,
        )
        return (
            None,
            *(TokenLogprobs(row[0], tuple(zip(ids, row[1:], strict=True))) for row, ids in rows),
        )
