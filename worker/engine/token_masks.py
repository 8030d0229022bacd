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

    from torch import Tensor

    from worker.constraints.matcher import Matcher

_WORD: Final = 32


class ConstrainedRow(Protocol):
    """What masking needs to know of a sequence."""

    @property
    def matcher(self) -> Matcher | None:
        """Where the answer is in its constraint."""

    @property
    def end_ids(self) -> frozenset[int]:
        """What ends the answer."""


class TokenMasks:
    """One bit a token and row, [rows, words of 32 tokens]: allocated once, written in each step.

    What may come next follows from the tokens so far, so it is worked out while the model runs:
    `begin` leaves that to a thread, which holds no lock of Python's while it does.
    `vocab` is that of the constraints, at least as wide as the logits: see `Vocabulary.size`.
    """

    def __init__(self, rows: int, vocab: int, device: torch.device | str = "cpu") -> None:
        self.vocab = vocab
        self._device = torch.device(device)
        words = -(-vocab // _WORD)
        pinned = self._device.type == "cuda"
        self._bits = torch.zeros((rows, words), dtype=torch.int32, pin_memory=pinned)
        self._words = self._bits.numpy().view(np.uint32)
        # What each byte of bits adds to eight logits: a table is ten times as quick as bit tests.
        places = torch.arange(8, device=self._device)
        free = torch.arange(256, device=self._device)[:, None] >> places & 1 == 1
        self._added = torch.zeros(256, 8, device=self._device).masked_fill_(~free, -math.inf)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="masks")
        self._begun: tuple[Sequence[ConstrainedRow], Future[None]] | None = None

    def begin(self, rows: Sequence[ConstrainedRow]) -> None:
        """Fill the bits of rows for the next `apply_`, which waits for it.

        Nobody may touch their matchers until then, or until `begin` is called again.
        """
        if self._begun is not None:
            self._begun[1].exception()  # waits: nobody wanted it
        self._begun = (rows, self._thread.submit(self._fill, rows)) if rows else None

    def apply_(self, logits: Tensor, rows: Sequence[tuple[int, ConstrainedRow]]) -> list[int]:
        """Put minus infinity where a token may not come; return the rows in which none may.

        logits: float32 [n, vocab or fewer], in place; `rows` are places in it with their rows, at
        most as many as there is room for. What one row's constraint cannot do ends that row alone:
        its matcher has the `error`.
        """
        wanted = [row for _, row in rows]
        if not self._is_begun(wanted):
            self._fill(wanted)
        bits = self._bits[: len(rows)].to(self._device, non_blocking=True).view(torch.uint8)
        added = embedding(bits.int(), self._added).flatten(1)[:, : logits.shape[1]]
        places = [place for place, _ in rows]
        if len(places) == len(logits):
            largest = logits.add_(added).amax(dim=1)
        else:
            logits[places] = masked = added.add_(logits[places])
            largest = masked.amax(dim=1)
        return [
            place
            for place, some in zip(places, largest.isfinite().tolist(), strict=True)
            if not some
        ]

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
                row.matcher.fill(words, row.end_ids)
