"""Which tokens of which sequences go into the next step.

Decodes first, then prefill in chunks in what is left of the token budget, or in less where decodes
would wait too long for it (prompt_pace.py). Seniority is the order of arrival, for ever: a sequence
may take cache blocks from any younger one (which is then computed again later), never from an older
one, so the oldest unfinished sequence advances in every step it runs in, and every sequence becomes
the oldest in the end.

Beginnings that are in the cache already are taken from there (prefix_cache.py), and shared blocks
are nobody's to take away: what a preemption frees are those that nobody else holds. A sequence
whose next block is computed in this step anyway has no row in it, and takes the block in the next.
It waits for a row that was planned before its own, in this step and in no other: the oldest waits
for nobody, each wait ends with a block computed, and whoever is preempted or cancelled is waited
for no longer.

A sequence whose adapter is still on its way into its slot has no row either: others run meanwhile,
and where nobody else could, the device waits for it.

Drafts (speculation.py) come last and take what nobody else has use for: tokens that the budget has
left, and blocks only where those that all running sequences need next are free.

While a step is in flight (in_flight.py), the next one is planned only where nobody has to be
preempted for it: else it is planned once that one is settled.
"""

from __future__ import annotations

from bisect import insort
from operator import attrgetter
from typing import TYPE_CHECKING

from aril.worker.engine.blocks import BlockAllocator
from aril.worker.engine.drafting import Drafting
from aril.worker.engine.in_flight import InFlight
from aril.worker.engine.prefix_cache import PrefixCache
from aril.worker.engine.prompt_pace import prompt_tokens
from aril.worker.engine.rope_lengths import RowRope
from aril.worker.engine.sequence import TokenSequence
from aril.worker.engine.slot_turns import SlotTurns
from aril.worker.engine.step_cost import StepCost
from aril.worker.engine.step_plan import Row, StepPlan

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aril.worker.engine.request import GenerationRequest
    from aril.worker.engine.slot_turns import SlotPool
    from aril.worker.engine.speculation import Speculation

_arrival = attrgetter("arrival")


class Scheduler:
    """Plans steps over waiting and running sequences; owns the cache's block ids.

    Call `plan`, run the model, call `advance`, and `remove` whatever has finished. Or launch the
    step, tell `in_flight`, `plan` the next one, and then `settle` the first. `max_passes`
    bounds how often younger jobs overtake one that waits for an adapter slot (see StarvationGuard).
    `stretch` is how many times as long as a decode a step with prompts may last, 1 or more.
    A sequence that grows beyond the length at which `rope` switches is computed anew. `finite` says
    whether blocks hold nothing else: others may then find them. Without `speculation` nothing is
    drafted; with it, what pays by `cost`.
    """

    def __init__(
        self,
        *,
        max_rows: int,
        max_step_tokens: int,
        kv_blocks: int,
        kv_block: int,
        slots: SlotPool,
        max_passes: int = 64,
        stretch: float = 2.0,
        rope: RowRope = RowRope(),  # noqa: B008 - it is frozen
        prefix_cache: bool = True,
        finite: Callable[[Sequence[int]], bool] = lambda _: True,
        speculation: Speculation | None = None,
        cost: StepCost | None = None,
    ) -> None:
        if not 1 <= max_rows <= max_step_tokens:
            raise ValueError(f"need 1 <= max_rows ({max_rows}) <= tokens ({max_step_tokens})")
        if not stretch >= 1:
            raise ValueError(f"a step of {stretch} decodes")
        self.max_rows = max_rows
        self.max_step_tokens = max_step_tokens
        self.stretch = stretch
        self.kv_block = kv_block
        self.rope = rope
        self.blocks = BlockAllocator(kv_blocks)
        self.prefixes = PrefixCache(
            self.blocks, kv_block, rope, enabled=prefix_cache, finite=finite
        )
        self.in_flight = InFlight(self.blocks, self.prefixes)
        self.drafting = None
        if speculation is not None:
            cost = StepCost() if cost is None else cost
            self.drafting = Drafting(speculation, cost, self.blocks, kv_block, rope)
        self.waiting: list[TokenSequence] = []  # both lists in the order of arrival
        self.running: list[TokenSequence] = []
        self.refused: list[tuple[int, Exception]] = []  # keys whose adapter could not be loaded
        self._sequences: dict[int, TokenSequence] = {}
        self._slots = SlotTurns(slots, max_passes)
        self._arrivals = 0
        # Of the step that is being planned.
        self._prompt_tokens = 0  # that may still be taken of prompts
        self._tellable = 0  # places of prompts that may still be told of

    @property
    def has_work(self) -> bool:
        """Whether any sequence is unfinished."""
        return bool(self._sequences)

    @property
    def kv_tokens(self) -> int:
        """Tokens that the whole cache holds."""
        return self.blocks.blocks * self.kv_block

    def holds(self, sequence: TokenSequence) -> bool:
        """Whether a sequence is unfinished, and nobody has dropped it."""
        return self._sequences.get(sequence.key) is sequence

    def add(self, request: GenerationRequest) -> TokenSequence:
        """Queue a request; ValueError for one that could never end, so would stop all behind it."""
        if request.key in self._sequences:
            raise ValueError(f"key {request.key} is in use")
        if not request.prompt_ids or len(request.resume_ids) >= request.sampling.longest:
            raise ValueError("a sequence needs a prompt and at least one token to sample")
        whole = len(request.prompt_ids) + request.sampling.longest
        if whole > self.kv_tokens:
            raise ValueError(f"{whole} tokens, the whole cache holds {self.kv_tokens}")
        sequence = TokenSequence(request, self._arrivals)
        # What a resumed prompt is told of goes by its own frequencies, as it did before.
        switch = self.rope.switch
        if switch and sequence.untold > 0 and len(sequence.prompt_ids) <= switch < sequence.length:
            sequence.hold_back()
        self._arrivals += 1
        self._sequences[request.key] = sequence
        self.waiting.append(sequence)
        return sequence

    def remove(self, key: int) -> bool:
        """Drop a finished or cancelled sequence and free what it holds; False if unknown."""
        sequence = self._sequences.pop(key, None)
        if sequence is None:
            return False
        if self.drafting is not None:
            self.drafting.speculation.ended(sequence)
        if sequence in self.running:
            self.running.remove(sequence)
            self._free(sequence)
        else:
            self.waiting.remove(sequence)
        self._slots.left(sequence, self.waiting)
        return True

    def plan(self) -> StepPlan | None:
        """Choose the next step's rows and allocate their blocks.

        None when there is nothing to do, or when nothing runs and the slot pool gave no slot; while
        a step is in flight also where blocks are short.
        """
        if self.in_flight.plan is not None and not self._fits():
            return None
        self._tellable = self.max_rows  # logits of a step: at most about twice those of its samples
        self._prompt_tokens = self._prompt_budget()
        self.prefixes.begin()
        rows, preempted = self._continue_running()
        self._admit_waiting(rows)
        if not rows and self._slots.expect():  # nobody else would run meanwhile
            self._prompt_tokens = self._prompt_budget()  # of those who run by now
            rows, more = self._continue_running()
            preempted += more
        if not rows:
            return None
        if self.drafting is not None:
            left = self.max_step_tokens - sum(row.count for row in rows)
            self.drafting.extend(rows, self.running, left)
        rows.sort(key=lambda row: (not row.slots, row.slots, row.bare == 0))
        return StepPlan(
            rows=tuple(rows),
            tokens=sum(row.count for row in rows),
            samples=sum(row.samples for row in rows),
            preempted=preempted,
        )

    def advance(self, plan: StepPlan, sampled_ids: Sequence[Sequence[int]]) -> None:
        """Note that the plan was run; `sampled_ids` has the ids of each row that samples.

        That is one, and one more for each token of its draft that came. None at all: the draft has
        spoilt the row, which is computed again.
        """
        if len(sampled_ids) != plan.samples:
            raise ValueError(f"tokens of {plan.samples} rows expected, of {len(sampled_ids)} given")
        each = iter(sampled_ids)
        for row in plan.rows:
            ids: Sequence[int] = next(each) if row.samples else ()
            sequence = row.sequence
            sequence.append(ids[:-1])  # what was drafted and came: its keys and values are there
            if stands := row.stands(len(ids)):
                sequence.advance(stands)
            sequence.told += len(row.tells)
            self.prefixes.keep(sequence, row.start, sequence.computed)
            self._let_go(sequence)
            if row.samples:
                if self.drafting is not None:
                    self.drafting.speculation.note(sequence, row.draft, ids)
                sequence.append(ids[-1:])
                if ids and sequence.length - 1 == self.rope.switch:
                    self._compute_anew(sequence)

    def settle(self, plan: StepPlan, ids: Sequence[int]) -> None:
        """Note the tokens of a step that was in flight: of each row that samples its one id."""
        self.in_flight.settle(plan, ids, self.holds)
        for row in filter(lambda row: self.holds(row.sequence), plan.rows):
            self._let_go(row.sequence)
            if row.samples and row.stop == self.rope.switch:
                self._compute_anew(row.sequence)

    def _fits(self) -> bool:
        """Whether each running sequence could sample its next token without another's blocks."""
        return self.blocks.free >= sum(
            each.blocks_missing(each.pending, self.kv_block) for each in self.running
        )

    def _continue_running(self) -> tuple[list[Row], int]:
        """Rows of the running sequences, oldest first, and how many were preempted for them."""
        rows: list[Row] = []
        preempted = 0
        position = 0
        while position < len(self.running):
            sequence = self.running[position]
            position += 1
            if not self._slots.arrived(sequence):
                continue
            if not sequence.remaining:  # its last token is in flight
                continue
            wanted = 1
            if not (decoding := sequence.decoding):
                self.prefixes.take(sequence, self.prefixes.find(sequence))
                if self.prefixes.awaits(sequence):
                    continue
                wanted = min(sequence.pending, self._prompt_tokens)
            while sequence.blocks_missing(wanted, self.kv_block) > self.blocks.free:
                if self.running[-1] is sequence:
                    break
                self._preempt_newest()
                preempted += 1
            if row := self._plan_row(sequence, wanted):
                rows.append(row)
                if not decoding:
                    self._prompt_tokens -= row.count
        return rows, preempted

    def _prompt_budget(self) -> int:
        """Return how many tokens the next step may take of prompts; each decode has its own."""
        decodes = sum(sequence.decoding for sequence in self.running)
        left = self.max_step_tokens - decodes
        if not decodes:
            return left
        room = self.max_rows - len(self.running)
        could = [each for each in self.running if not each.decoding] + self.waiting[:room]
        waiting = sum(
            each.pending - len(self.prefixes.find(each)) * self.kv_block for each in could
        )
        return min(left, prompt_tokens(decodes, len(could), waiting, self.stretch))

    def _admit_waiting(self, rows: list[Row]) -> None:
        """Start waiting sequences in order; only those without an adapter slot are overtaken."""
        # Left free, so that a new sequence is rarely preempted at once.
        growth = sum(sequence.growth(self.kv_block) for sequence in self.running)
        self._slots.begin()
        for sequence in tuple(self.waiting):
            if self._prompt_tokens == 0 or len(self.running) == self.max_rows:
                return
            if not self._slots.free(sequence, self.running):
                continue
            known = self.prefixes.find(sequence)
            needed = sequence.growth(self.kv_block) - len(known) + self.prefixes.idle(known)
            others = self.running or self.in_flight.late
            if others and growth + needed > self.blocks.free:
                return  # the oldest that could run waits for memory; nobody takes it meanwhile
            # Last, since taking a slot may push an idle adapter out.
            if error := self._slots.take(sequence):
                self.refused.append((sequence.key, error))
                self.remove(sequence.key)
                continue
            self.waiting.remove(sequence)
            insort(self.running, sequence, key=_arrival)
            self.prefixes.take(sequence, known)
            if not self._slots.arrived(sequence) or self.prefixes.awaits(sequence):
                growth += sequence.growth(self.kv_block)
                continue
            row = self._plan_row(sequence, min(sequence.pending, self._prompt_tokens))
            if row is None:
                raise RuntimeError(f"no block for {sequence!r} that was checked to fit")
            self._prompt_tokens -= row.count
            growth += sequence.growth(self.kv_block)
            rows.append(row)

    def _plan_row(self, sequence: TokenSequence, wanted: int) -> Row | None:
        """Row of up to `wanted` tokens, as far as free blocks go; None if not even one fits."""
        first = max(sequence.computed, sequence.told)
        tellable = max(1, self._tellable)
        if sequence.untold > tellable:  # a vocabulary of logits a place: few at once
            wanted = min(wanted, first + tellable - sequence.computed)
        if sequence.held_ids:  # the prompt's last token comes before the answer's, not before a new
            wanted = min(wanted, sequence.pending - 1)
        blocks = min(sequence.blocks_missing(wanted, self.kv_block), self.blocks.free)
        sequence.block_ids.extend(self.blocks.allocate(blocks))
        start = sequence.computed
        count = min(wanted, len(sequence.block_ids) * self.kv_block - start)
        if count <= 0:
            return None
        stop = min(start + count, sequence.told + sequence.untold)
        tells = range(first - start, max(first, stop) - start)
        self._tellable -= len(tells)
        self.prefixes.plan(sequence, count)
        return Row(sequence, start, count, start + count == sequence.length, tells)

    def _preempt_newest(self) -> None:
        sequence = self.running.pop()
        self._free(sequence)
        insort(self.waiting, sequence, key=_arrival)

    def _let_go(self, sequence: TokenSequence) -> None:
        """Let the answer follow that was held back, once its prompt was told of."""
        if sequence.held_ids and not sequence.untold:
            sequence.let_go()
            self._compute_anew(sequence)

    def _compute_anew(self, sequence: TokenSequence) -> None:
        """Leave what was computed by other frequencies of RoPE to whoever may still find it."""
        self.blocks.release(sequence.block_ids)
        sequence.forget()
        sequence.block_names = []

    def _free(self, sequence: TokenSequence) -> None:
        self.in_flight.release(sequence)
        self._slots.release(sequence)
        sequence.reset()
