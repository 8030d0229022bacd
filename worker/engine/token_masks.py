"""Masks of the rows whose answers are constrained: bits for a whole batch, applied at once."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
import torch
from torch.nn.functional import embedding

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Future

    from numpy.typing import NDArray
    from torch import Tensor

    from aril.worker.constraints.matcher import Matcher

_WORDS: Final = 64  # tokens in two words of a matcher's


class ConstrainedRow(Protocol):
    """What masking needs to know of a sequence."""

    @property
    def matcher(self) -> Matcher | None:
        """Where the answer is in its constraint."""

    @property
    def end_ids(self) -> frozenset[int]:
        """What ends the answer."""


class TokenMasks:
    """One bit a token and row, allocated once, written in each step.

    What may come next follows from the tokens so far, so it is worked out while the model runs:
    `begin` leaves that to a thread, which holds no lock of Python's while it does.
    `vocab` is that of the constraints, at least as wide as the logits: see `Vocabulary.size`.
    """

    def __init__(self, rows: int, vocab: int, device: torch.device | str = "cpu") -> None:
        self.vocab = vocab
        self._words = np.zeros((rows, 2 * -(-vocab // _WORDS)), np.uint32)
        self._filled = -(-vocab // 32)  # words that matchers know of
        # What each byte of bits adds to eight logits: a table is ten times as quick as bit tests.
        places = torch.arange(8, device=device)
        free = torch.arange(256, device=device)[:, None] >> places & 1 == 1
        self._added = torch.zeros(256, 8, device=device).masked_fill_(~free, -math.inf)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="masks")
        self._begun: tuple[Sequence[ConstrainedRow], Future[None]] | None = None

    def begin(self, rows: Sequence[ConstrainedRow]) -> None:
        """Fill the bits of rows for the next `bits`, which waits for it.

        Nobody may touch their matchers until then, or until `begin` is called again.
        """
        if self._begun is not None:
            self._begun[1].exception()  # waits: nobody wanted it
        self._begun = (rows, self._thread.submit(self._fill, rows)) if rows else None

    def bits(self, rows: Sequence[ConstrainedRow]) -> NDArray[np.int64]:
        """Return the rows' bits [rows, words of 64 tokens], which stand until the next call.

        What one row's constraint cannot do ends that row alone: its matcher has the `error`.
        """
        if not self._is_begun(rows):
            self._fill(rows)
        return self._words[: len(rows)].view(np.int64)

    def apply_(self, logits: Tensor, places: Tensor, bits: Tensor) -> None:
        """Put minus infinity where a token may not come.

        logits: float32 [n, vocab or fewer], in place; places: int64 [m], the rows whose bits,
        int64 [m, words], these are; all on one device.
        """
        octets = bits.view(torch.uint8)
        added = embedding(octets.int(), self._added).flatten(1)[:, : logits.shape[1]]
        if len(places) == len(logits):
            logits.add_(added)
        else:
            logits.index_add_(0, places, added)

    def _is_begun(self, wanted: Sequence[ConstrainedRow]) -> bool:
        """Wait for what was begun; tell whether that is what is wanted."""
        if self._begun is None:
            return False
        (rows, filled), self._begun = self._begun, None
        filled.result()
        return [*map(id, rows)] == [*map(id, wanted)]

    def _fill(self, rows: Sequence[ConstrainedRow]) -> None:
        for words, row in zip(self._words, rows, strict=False):  # there is room for more
            if row.matcher is not None:
                row.matcher.fill(words[: self._filled], row.end_ids)
