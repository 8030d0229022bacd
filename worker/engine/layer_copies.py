"""Layers that are alike are written down once a step; the others are copies with their own memory.

Python takes several times as long to write a layer's calls down as to copy them. What tells two
layers of one kind apart are the addresses of their weights and caches alone, so a copy of the words
with these replaced says the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Hashable

    from torch import Tensor

    from aril.kernels.program import Mark, Passage, Program, Words


class Own(NamedTuple):
    """What is a layer's own: addresses, each once, in an order that its kind decides."""

    kind: Hashable  # all else that its calls are told
    addresses: Words  # the last two are for its caches

    def over(self, caches: tuple[Tensor, Tensor]) -> Words:
        """Return the addresses of the layer over a step's caches."""
        self.addresses[-2:] = caches[0].data_ptr(), caches[1].data_ptr()
        return self.addresses


class _Written(NamedTuple):
    kind: Hashable
    passage: Passage
    places: Words  # of its words, those that are addresses of the layer's own
    which: Words  # and which
    carried: Tensor  # what it adds, and leaves to be added


class LayerCopies:
    """The last layer that a step has written down, for copies of it."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._written: _Written | None = None

    def forget(self) -> None:
        """Have the next layer written down: something else than its own has changed."""
        self._written = None

    def copy(self, own: Own | None, caches: tuple[Tensor, Tensor], carried: Tensor | None) -> bool:
        """Write down what a layer does to what it is left, if one of its kind is there.

        It leaves its own in the same memory.
        """
        written = self._written
        if own is None or written is None or carried is not written.carried:
            return False
        if own.kind != written.kind:
            return False
        words = written.passage.words.copy()
        words[written.places] = own.over(caches)[written.which]
        self._program.append(written.passage, words)
        return True

    def mark(self) -> Mark:
        """Return where the next layer begins."""
        return self._program.mark()

    def keep(
        self,
        own: Own | None,
        caches: tuple[Tensor, Tensor],
        mark: Mark,
        taken: Tensor | None,
        left: Tensor,
    ) -> None:
        """Remember what was written down since, as what a layer does to what it was left."""
        self._written = None
        passage = self._program.since(mark)
        if own is None or passage is None or taken is not left:
            return
        mine = own.over(caches)
        order = np.argsort(mine)
        at = np.searchsorted(mine, passage.words, sorter=order)
        which = order[np.minimum(at, len(order) - 1)]
        places = np.flatnonzero(mine[which] == passage.words)
        self._written = _Written(own.kind, passage, places, which[places], left)
