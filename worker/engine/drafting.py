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
    from worker.engine.step_cost import StepCost
    from worker.engine.step_plan import Row


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
        decodes = [place for place, row in enumerate(rows) if row.count == 1 and row.samples]
        if budget < 1 or not 0 < len(decodes) <= MOST_A_STEP:
            return
        tokens = sum(row.count for row in rows)
        logits = sum(row.sampled + len(row.tells) for row in rows)
        paid = tokens / self.cost(tokens, logits)  # brought in the time of one row
        early = sum(each.growth(self.kv_block) for each in running) <= self.blocks.free
        chances: list[Sequence[float]] = []
        for place in decodes:
            row = rows[place]
            own = () if row.tells else self.speculation.guess(row.sequence, paid).chances
            room = self._room(row.sequence, early=early) if own else 0
            chances.append(own[: max(0, room)])
        if not any(chances):
            return
        lengths = self.speculation.choose(
            chances,
            [self.cost.beside_row(rows[place].sequence.length) for place in decodes],
            lambda drafted: self.cost(tokens + drafted, logits + drafted),
            tokens,
            budget,
        )
        for place, length in zip(decodes, lengths, strict=True):
            if length:
                self._draft(rows, place, length)

    def _draft(self, rows: list[Row], place: int, length: int) -> None:
        """Put the first tokens of a row's guess behind it."""
        row = rows[place]
        guessing = row.sequence.guessing
        assert guessing is not None  # noqa: S101 - it has guessed
        assert guessing.guess is not None  # noqa: S101
        draft = tuple(guessing.guess.ids[:length])
        missing = row.sequence.blocks_missing(1 + length, self.kv_block)
        row.sequence.block_ids.extend(self.blocks.allocate(missing))
        rows[place] = replace(row, count=1 + length, draft=draft)

    def _room(self, sequence: TokenSequence, *, early: bool) -> int:
        """How many tokens may be drafted: to the answer's end, to where RoPE switches, in blocks.

        `early`: blocks may be taken that the sequence will need soon.
        """
        room = sequence.remaining - 1
        if self.rope.switch is not None and sequence.length <= self.rope.switch:
            room = min(room, self.rope.switch - sequence.length)
        blocks = len(sequence.block_ids) + (sequence.growth(self.kv_block) if early else 0)
        return min(room, blocks * self.kv_block - sequence.length)
