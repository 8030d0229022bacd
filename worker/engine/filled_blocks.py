"""Which of the cache's blocks that a step has filled hold nothing but finite numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import Tensor


class Forwarded(NamedTuple):
    """What a step has computed, and nobody has read yet."""

    logits: Tensor  # float32 [n, vocab]: of each row the places told of, then those sampled
    filled: list[int]  # blocks of the cache that it has filled
    finite: Tensor | None  # [filled]: whether their numbers are; None where nobody asks, or none is


class FilledBlocks:
    """What the last step found, for those who may let others find its blocks.

    A device looks right behind the forward pass, and what it finds is read with the tokens.
    """

    def __init__(self) -> None:
        self._finite: dict[int, bool] = {}

    def note(self, blocks: Sequence[int], finite: Iterable[float]) -> None:
        """Take over what was found of all blocks that the step filled: 0 for what is not finite."""
        self._finite = dict(zip(blocks, map(bool, finite), strict=True))

    def finite(self, blocks: Iterable[int]) -> bool:
        """Whether these blocks, which the last step filled, hold finite numbers only."""
        return all(self._finite[block] for block in blocks)
