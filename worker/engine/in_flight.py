"""Sequences and blocks of steps that were launched and whose tokens nobody has read.

A launched step counts as computed at once, and what it samples as a token whose id is UNREAD, so
that the step behind it is planned like any other. `settle` puts the ids in their places and gives
blocks their names: both need what the device has found.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aril.worker.engine.sequence import UNREAD

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aril.worker.engine.blocks import BlockAllocator
    from aril.worker.engine.prefix_cache import PrefixCache
    from aril.worker.engine.sequence import TokenSequence
    from aril.worker.engine.step_plan import StepPlan


class InFlight:
    """The step that was launched last, while it is not settled.

    A second one is launched before the first is settled, and nothing is released between.
    """

    def __init__(self, blocks: BlockAllocator, prefixes: PrefixCache) -> None:
        self.plan: StepPlan | None = None
        self._blocks = blocks
        self._prefixes = prefixes
        self._late: list[list[int]] = []  # blocks of sequences that are gone, by sequence

    @property
    def late(self) -> bool:
        """Whether blocks will be free once the step is settled."""
        return bool(self._late)

    def launch(self, plan: StepPlan) -> None:
        """Note that a step without drafts was launched."""
        for row in plan.rows:
            row.sequence.advance(row.count)
            row.sequence.told += len(row.tells)
            if row.samples:
                row.sequence.append((UNREAD,))
        self.plan = plan
        self._prefixes.launched()

    def settle(
        self, plan: StepPlan, ids: Sequence[int], holds: Callable[[TokenSequence], bool]
    ) -> None:
        """Note the id of each row that samples, of the oldest step that was launched.

        Rows of sequences that nobody `holds` any more were computed for nothing.
        """
        if self.plan is plan:
            self.plan = None
            self._prefixes.settled()
        for blocks in self._late:
            self._blocks.release(blocks)
        self._late.clear()
        each = iter(ids)
        for row in plan.rows:
            token = next(each) if row.samples else UNREAD
            if not holds(row.sequence):
                continue
            self._prefixes.keep(row.sequence, row.start, row.stop)
            if row.samples:
                row.sequence.put(row.stop, token)

    def release(self, sequence: TokenSequence) -> None:
        """Give up a sequence's blocks: at once, or when the step that writes them has run."""
        if self.plan is not None and any(row.sequence is sequence for row in self.plan.rows):
            self._late.append(sequence.block_ids)
        else:
            self._blocks.release(sequence.block_ids)
