"""Which tokens of which sequences go into the next step.

Decodes first, then prefill in chunks in what is left of the token budget. Seniority is the order
of arrival, for ever: a sequence may take cache blocks from any younger one (which is then computed
again later), never from an older one, so the oldest unfinished sequence advances in every step it
runs in, and every sequence becomes the oldest in the end.

Beginnings that are in the cache already are taken from there (prefix_cache.py), and shared blocks
are nobody's to take away: what a preemption frees are those that nobody else holds. A sequence
whose next block is computed in this step anyway has no row in it, and takes the block in the next.
It waits for a row that was planned before its own, in this step and in no other: the oldest waits
for nobody, each wait ends with a block computed, and whoever is preempted or cancelled is waited
for no longer.
"""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Protocol

from worker.engine.blocks import BlockAllocator
from worker.engine.prefix_cache import PrefixCache
from worker.engine.rope_lengths import RowRope
from worker.engine.sequence import TokenSequence
from worker.engine.starvation import StarvationGuard

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from worker.adapters import AdapterWeights
    from worker.engine.request import GenerationRequest

_arrival = attrgetter("arrival")


class SlotPool(Protocol):
    """Adapter slots of the device, as far as planning needs them."""

    def can_acquire(self, adapters: Sequence[AdapterWeights]) -> bool:
        """Whether `acquire` would give slots; changes nothing."""

    def acquire(self, adapters: Sequence[AdapterWeights]) -> tuple[int, ...] | None:
        """Hold each adapter's slot once more, or take an idle one for it; None: not now.

        What it raises is an adapter's fault: its sequence is given up, see `Scheduler.refused`.
        """

    def release(self, slots: Sequence[int]) -> None:
        """Undo one `acquire`; a slot that nobody holds may be given to another adapter."""


@dataclass(frozen=True, slots=True)
class Row:
    """Tokens `start` to `start + count` of one sequence; the last one is sampled from or not.

    `tells` are those of them, counted from `start`, whose logits tell how likely the prompt is.
    """

    sequence: TokenSequence
    start: int
    count: int
    samples: bool
    tells: range = range(0)

    @property
    def logits(self) -> int:
        """How many of its tokens' logits are made."""
        return len(self.tells) + self.samples

    @property
    def bare(self) -> int:
        """How many of the tokens, from the first on, come before the adapter's work."""
        return max(0, min(self.count, self.sequence.active_from - self.start))

    @property
    def slots(self) -> tuple[int, ...]:
        """The adapter slots of the last token; none on the backbone."""
        return () if self.bare == self.count else self.sequence.slots


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One step: tokens of one (first) adapter slot are adjacent, as far as may be; slots ascend.

    Rows of the backbone come last. One that begins on the backbone and ends on an adapter comes
    before the adapter's others.
    """

    rows: tuple[Row, ...]
    tokens: int
    samples: int  # rows that end in a sampled token
    preempted: int  # sequences that lost their blocks to make room


class Scheduler:
    """Plans steps over waiting and running sequences; owns the cache's block ids.

    Call `plan`, run the model, call `advance`, and `remove` whatever has finished. `max_passes`
    bounds how often younger jobs overtake one that waits for an adapter slot (see StarvationGuard).
    A sequence that grows beyond the length at which `rope` switches is computed anew. `finite` says
    whether blocks hold nothing else: others may then find them.
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
        rope: RowRope = RowRope(),  # noqa: B008 - it is frozen
        prefix_cache: bool = True,
        finite: Callable[[Sequence[int]], bool] = lambda _: True,
    ) -> None:
        if not 1 <= max_rows <= max_step_tokens:
            raise ValueError(f"need 1 <= max_rows ({max_rows}) <= tokens ({max_step_tokens})")
        self.max_rows = max_rows
        self.max_step_tokens = max_step_tokens
        self.kv_block = kv_block
        self.rope = rope
        self.blocks = BlockAllocator(kv_blocks)
        self.prefixes = PrefixCache(
            self.blocks, kv_block, rope, enabled=prefix_cache, finite=finite
        )
        self.waiting: list[TokenSequence] = []  # both lists in the order of arrival
        self.running: list[TokenSequence] = []
        self.refused: list[tuple[int, Exception]] = []  # keys whose adapter could not be loaded
        self._sequences: dict[int, TokenSequence] = {}
        self._slots = slots
        self._starvation = StarvationGuard(max_passes)
        self._arrivals = 0
        self._tellable = 0  # places of prompts that may still be told of in this step

    @property
    def has_work(self) -> bool:
        """Whether any sequence is unfinished."""
        return bool(self._sequences)

    @property
    def kv_tokens(self) -> int:
        """Tokens that the whole cache holds."""
        return self.blocks.blocks * self.kv_block

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
        if sequence in self.running:
            self.running.remove(sequence)
            self._free(sequence)
        else:
            self.waiting.remove(sequence)
        if all(other.digests != sequence.digests for other in self.waiting):
            self._starvation.forget(sequence.digests)
        return True

    def plan(self) -> StepPlan | None:
        """Choose the next step's rows and allocate their blocks.

        None when there is nothing to do, or when nothing runs and the slot pool gave no slot.
        """
        self._tellable = self.max_rows  # logits of a step: at most about twice those of its samples
        self.prefixes.begin()
        rows, preempted = self._continue_running()
        self._admit_waiting(rows)
        if not rows:
            return None
        rows.sort(key=lambda row: (not row.slots, row.slots, row.bare == 0))
        return StepPlan(
            rows=tuple(rows),
            tokens=sum(row.count for row in rows),
            samples=sum(row.samples for row in rows),
            preempted=preempted,
        )

    def advance(self, plan: StepPlan, sampled_ids: Sequence[int]) -> None:
        """Note that the plan was run; `sampled_ids` has one id for each row that samples."""
        if len(sampled_ids) != plan.samples:
            raise ValueError(f"{plan.samples} sampled tokens expected, got {len(sampled_ids)}")
        ids = iter(sampled_ids)
        for row in plan.rows:
            sequence = row.sequence
            sequence.advance(row.count)
            sequence.told += len(row.tells)
            self.prefixes.keep(sequence, row.start)
            if sequence.held_ids and not sequence.untold:
                sequence.let_go()
                self._compute_anew(sequence)
            if row.samples:
                sequence.append((next(ids),))
                if sequence.length - 1 == self.rope.switch:
                    self._compute_anew(sequence)

    def _continue_running(self) -> tuple[list[Row], int]:
        """Rows of the running sequences, oldest first, and how many were preempted for them."""
        rows: list[Row] = []
        preempted = 0
        budget = self.max_step_tokens
        decodes = sum(sequence.decoding for sequence in self.running)  # not yet planned
        position = 0
        while position < len(self.running):
            sequence = self.running[position]
            position += 1
            wanted = 1
            if sequence.decoding:
                decodes -= 1
            else:
                self.prefixes.take(sequence, self.prefixes.find(sequence))
                if self.prefixes.awaits(sequence):
                    continue
                wanted = min(sequence.pending, budget - decodes)
            while self._blocks_missing(sequence, wanted) > self.blocks.free:
                if self.running[-1] is sequence:
                    break
                self._preempt_newest()
                preempted += 1
            if row := self._plan_row(sequence, wanted):
                budget -= row.count
                rows.append(row)
        return rows, preempted

    def _admit_waiting(self, rows: list[Row]) -> None:
        """Start waiting sequences in order; only those without an adapter slot are overtaken."""
        budget = self.max_step_tokens - sum(row.count for row in rows)
        growth = sum(self._growth(sequence) for sequence in self.running)
        self._starvation.begin()
        for sequence in tuple(self.waiting):
            if budget == 0 or len(self.running) == self.max_rows:
                return
            if not self._has_slot(sequence):
                continue
            known = self.prefixes.find(sequence)
            needed = self._growth(sequence) - len(known) + self.prefixes.idle(known)
            if self.running and growth + needed > self.blocks.free:
                return  # the oldest that could run waits for memory; nobody takes it meanwhile
            # Last, since taking a slot may push an idle adapter out.
            if not self._acquire_slot(sequence):
                continue
            self._starvation.admitted(sequence.digests)
            self.waiting.remove(sequence)
            insort(self.running, sequence, key=_arrival)
            self.prefixes.take(sequence, known)
            if self.prefixes.awaits(sequence):
                growth += self._growth(sequence)
                continue
            row = self._plan_row(sequence, min(sequence.pending, budget))
            if row is None:
                raise RuntimeError(f"no block for {sequence!r} that was checked to fit")
            budget -= row.count
            growth += self._growth(sequence)
            rows.append(row)

    def _plan_row(self, sequence: TokenSequence, wanted: int) -> Row | None:
        """Row of up to `wanted` tokens, as far as free blocks go; None if not even one fits."""
        first = max(sequence.computed, sequence.told)
        tellable = max(1, self._tellable)
        if sequence.untold > tellable:  # a vocabulary of logits a place: few at once
            wanted = min(wanted, first + tellable - sequence.computed)
        if sequence.held_ids:  # the prompt's last token comes before the answer's, not before a new
            wanted = min(wanted, sequence.pending - 1)
        blocks = min(self._blocks_missing(sequence, wanted), self.blocks.free)
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

    def _blocks_missing(self, sequence: TokenSequence, count: int) -> int:
        """Blocks to allocate before `count` more tokens of this sequence fit."""
        return max(0, -(-(sequence.computed + count) // self.kv_block) - len(sequence.block_ids))

    def _growth(self, sequence: TokenSequence) -> int:
        """Blocks that the sequence needs soon: for all its tokens and the next block's worth.

        Admission leaves them free, so that a new sequence is rarely preempted at once.
        """
        final = len(sequence.prompt_ids) + sequence.sampling.longest
        soon = min(sequence.length + self.kv_block, final)
        return self._blocks_missing(sequence, soon - sequence.computed)

    def _has_slot(self, sequence: TokenSequence) -> bool:
        if not sequence.adapters:
            return True
        if self._starvation.closed(sequence.digests):
            return False
        if not self._slots.can_acquire(sequence.adapters):
            self._starvation.refused(sequence.digests, self.running)
            return False
        return True

    def _acquire_slot(self, sequence: TokenSequence) -> bool:
        """Take the slots that there are; False if an adapter cannot be loaded."""
        if not sequence.adapters:
            return True
        try:
            slots = self._slots.acquire(sequence.adapters)
        except Exception as error:  # noqa: BLE001 - told by whoever takes it from the list
            self.refused.append((sequence.key, error))
            self.remove(sequence.key)
            return False
        if slots is None:
            raise RuntimeError(f"no slot for {sequence!r} that was checked to be there")
        sequence.slots = slots
        return True

    def _release_slot(self, sequence: TokenSequence) -> None:
        self._slots.release(sequence.slots)
        sequence.slots = ()

    def _preempt_newest(self) -> None:
        sequence = self.running.pop()
        self._free(sequence)
        insort(self.waiting, sequence, key=_arrival)

    def _compute_anew(self, sequence: TokenSequence) -> None:
        """Leave what was computed by other frequencies of RoPE to whoever may still find it."""
        self.blocks.release(sequence.block_ids)
        sequence.forget()
        sequence.block_names = []

    def _free(self, sequence: TokenSequence) -> None:
        self.blocks.release(sequence.block_ids)
        self._release_slot(sequence)
        sequence.reset()
