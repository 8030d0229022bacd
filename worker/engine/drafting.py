"""Where in a planned step there is room for drafts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from aril.worker.engine.speculation import MOST_A_STEP

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aril.worker.engine.blocks import BlockAllocator
    from aril.worker.engine.rope_lengths import RowRope
    from aril.worker.engine.sequence import TokenSequence
    from aril.worker.engine.speculation import Speculation
    from aril.worker.engine.step_cost import StepCost
    from aril.worker.engine.step_plan import Row


@dataclass(frozen=True, slots=True)
class Drafting:
    """Lets rows that decode go on by guesses, in what is left when all else is planned."""

    speculation: Speculation
    cost: StepCost
    blocks: BlockAllocator
    kv_block: int
    rope: RowRope

    def extend(self, rows: list[Row], running: Sequence[TokenSequence], budget: int) -> None:
        """Put drafts of at most `budget` tokens behind rows, in place, and allocate their blocks.

        A block is taken early only where those that all `running` sequences need next are free.
        """
        budget = min(MOST_A_STEP, budget)
        decodes = [
            place
            for place, row in enumerate(rows)
            if row.count == 1 and row.samples and not row.tells
        ]
        if budget < 1 or not 0 < len(decodes) <= MOST_A_STEP:
            return
        tokens = sum(row.count for row in rows)
        logits = sum(row.sampled + len(row.tells) for row in rows)
        paid = tokens / self.cost(tokens, logits)  # brought in the time of one row
        guessed = {place: self.speculation.guess(rows[place].sequence, paid) for place in decodes}
        places = [place for place, guess in guessed.items() if guess.ids]
        if not places:
            return
        early = sum(each.growth(self.kv_block) for each in running) <= self.blocks.free
        rooms = [max(0, self._room(rows[place].sequence, early=early)) for place in places]
        lengths = self.speculation.choose(
            [guessed[place].chances[:room] for place, room in zip(places, rooms, strict=True)],
            [self.cost.beside_row(rows[place].sequence.length) for place in places],
            lambda drafted: self.cost(tokens + drafted, logits + drafted),
            tokens,
            budget,
        )
        for place, length in zip(places, lengths, strict=True):
            if length:
                self._draft(rows, place, guessed[place].ids[:length])

    def _draft(self, rows: list[Row], place: int, ids: Sequence[int]) -> None:
        """Put a draft behind a row."""
        row = rows[place]
        count = 1 + len(ids)
        missing = row.sequence.blocks_missing(count, self.kv_block)
        row.sequence.block_ids.extend(self.blocks.allocate(missing))
        rows[place] = replace(row, count=count, draft=tuple(ids))

    def _room(self, sequence: TokenSequence, *, early: bool) -> int:
        """How many tokens may be drafted: to the answer's end, to where RoPE switches, in blocks.

        `early`: blocks may be taken that the sequence will need soon.
        """
        room = sequence.remaining - 1
        if self.rope.switch is not None and sequence.length <= self.rope.switch:
            room = min(room, self.rope.switch - sequence.length)
        blocks = len(sequence.block_ids) + (sequence.growth(self.kv_block) if early else 0)
        return min(room, blocks * self.kv_block - sequence.length)
