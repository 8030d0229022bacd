"""Where in a planned step there is room for drafts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from worker.engine.speculation import MOST_A_STEP

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker.engine.blocks import BlockAllocator
    from worker.engine.rope_lengths import RowRope
    from worker.engine.sequence import TokenSequence
    from worker.engine.speculation import Speculation
    from worker.engine.step_plan import Row


@dataclass(frozen=True, slots=True)
class Drafting:
    """Lets rows that decode go on by guesses, in what is left when all else is planned."""

    speculation: Speculation
    blocks: BlockAllocator
    kv_block: int
    rope: RowRope

    def extend(self, rows: list[Row], running: Sequence[TokenSequence], budget: int) -> None:
        """Put drafts of at most `budget` tokens behind rows, in place, and allocate their blocks.

        A block is taken early only where those that all `running` sequences need next are free.
        """
        budget = min(MOST_A_STEP, budget)
        decodes = [place for place, row in enumerate(rows) if row.count == 1 and row.samples]
        price = self.speculation.price(len(decodes))
        if price >= 1:
            return
        early = sum(each.growth(self.kv_block) for each in running) <= self.blocks.free
        for place in decodes:
            row = rows[place]
            if row.tells:
                continue
            room = min(budget, self._room(row.sequence, early=early))
            if draft := self.speculation.draft(row.sequence, price, room):
                budget -= len(draft)
                count = 1 + len(draft)
                missing = row.sequence.blocks_missing(count, self.kv_block)
                row.sequence.block_ids.extend(self.blocks.allocate(missing))
                rows[place] = replace(row, count=count, draft=draft)

    def _room(self, sequence: TokenSequence, *, early: bool) -> int:
        """How many tokens may be drafted: to the answer's end, to where RoPE switches, in blocks.

        `early`: blocks may be taken that the sequence will need soon.
        """
        room = sequence.remaining - 1
        if self.rope.switch is not None and sequence.length <= self.rope.switch:
            room = min(room, self.rope.switch - sequence.length)
        blocks = len(sequence.block_ids) + (sequence.growth(self.kv_block) if early else 0)
        return min(room, blocks * self.kv_block - sequence.length)
