"""Generation requests, a pool of adapter slots and a model, all small enough to check by eye."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from zlib import crc32

from aril.schemas import Sampling
from aril.worker.engine.mixture import Mixture
from aril.worker.engine.request import GenerationRequest
from aril.worker.engine.rope_lengths import RowRope
from aril.worker.engine.sequence import TokenSequence

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aril.worker.engine.step_plan import Row, StepPlan

STATES = 9973
PLAIN = RowRope()


@dataclass(frozen=True)
class NamedAdapter:
    """An adapter of which only the identity matters."""

    digest: str


def request(
    key: int,
    prompt: tuple[int, ...] | int = (1,),
    *,
    max_tokens: int = 4,
    adapter: str | tuple[str, ...] | None = None,
    resume: tuple[int, ...] = (),
    seed: int = 0,
    sampling: Sampling | None = None,
) -> GenerationRequest:
    """Build a request; a prompt given as a number is that many tokens, told apart by the key."""
    if isinstance(prompt, int):
        prompt = tuple(100 * key + position for position in range(prompt))
    weights: Any = None
    if isinstance(adapter, str):
        weights = NamedAdapter(adapter)
    elif adapter is not None:
        members: Any = tuple(map(NamedAdapter, adapter))
        weights = Mixture(members, (1.0,) * len(members))
    return GenerationRequest(
        key=key,
        prompt_ids=prompt,
        sampling=sampling or Sampling(max_tokens=max_tokens),
        seed=seed,
        adapter=weights,
        resume_ids=resume,
    )


class CountingSlots:
    """Adapter slots with a count of holders; an idle slot goes to whoever asks first."""

    def __init__(self, slots: int) -> None:
        self.resident: list[str | None] = [None] * slots
        self.holders = [0] * slots
        self.loads: list[str] = []
        self.broken: set[str] = set()  # adapters that cannot be loaded
        self.delays: Sequence[int] = (0,)  # steps until each load is there, over and over
        self.under_way: dict[int, int] = {}  # by slot

    def can_acquire(self, adapters: Any) -> bool:
        """Whether there are slots for all."""
        wanted = {adapter.digest for adapter in adapters}
        free = sum(
            not held and digest not in wanted
            for held, digest in zip(self.holders, self.resident, strict=True)
        )
        return len(wanted - set(self.resident)) <= free

    def acquire(self, adapters: Any) -> tuple[int, ...] | None:
        """Hold the adapters' slots, or idle ones."""
        if not self.can_acquire(adapters):
            return None
        digests = [adapter.digest for adapter in adapters]
        if broken := self.broken & set(digests) - set(self.resident):
            raise RuntimeError(f"{min(broken)} is broken")
        for digest in digests:
            if digest in self.resident:
                continue
            slot = min(
                (
                    slot
                    for slot, held in enumerate(self.holders)
                    if not held and self.resident[slot] not in digests
                ),
                key=lambda slot: self.resident[slot] is not None,  # empty ones first
            )
            self.under_way[slot] = self.delays[len(self.loads) % len(self.delays)]
            self.loads.append(digest)
            self.resident[slot] = digest
        slots = tuple(map(self.resident.index, digests))
        for slot in slots:
            self.holders[slot] += 1
        return slots

    def tick(self) -> None:
        """Let a step's time pass."""
        for slot in self.under_way:
            self.under_way[slot] -= 1

    def arrived(self, slots: Any) -> bool:
        """Whether all are there."""
        return all(self.under_way[slot] <= 0 for slot in slots)

    def expect(self) -> bool:
        """Let all be there."""
        late = [slot for slot, left in self.under_way.items() if left > 0]
        self.under_way.update(dict.fromkeys(late, 0))
        return bool(late)

    def release(self, slots: Any) -> None:
        """Let go; more often than held is a bug of the caller."""
        for slot in slots:
            assert self.holders[slot] > 0
            self.holders[slot] -= 1


class CacheModel:
    """A model whose next token is a function of what its block table holds.

    Where a real one keeps keys and values of a token it keeps a number, made of the token, of what
    works on it, of its RoPE, and of the number before it as the cache has it. So a block that holds
    anything else than the sequence's own, a gap, or a wrong order changes an answer.
    """

    def __init__(self, kv_block: int, rope: RowRope = PLAIN, *, vocabulary: int = STATES) -> None:
        self.kv_block = kv_block
        self.rope = rope
        self.vocabulary = vocabulary
        self.cache: dict[tuple[int, int], int] = {}
        self.salts: dict[int, str] = {}  # of who wrote into a block last
        self.computed = 0  # tokens

    def run(self, plan: StepPlan, ids: Sequence[Sequence[int]] | None = None) -> list[list[int]]:
        """Store the plan's tokens, then sample from the rows that do, along their drafts.

        `ids` are each row's tokens, where the plan does not know them all.
        """
        if ids is None:
            ids = [row.ids for row in plan.rows]
        for row, tokens in zip(plan.rows, ids, strict=True):
            sequence = row.sequence
            assert len(tokens) == row.count
            self.computed += row.count
            for position, token in enumerate(tokens, row.start):
                before = self.at(sequence, position - 1) if position else 0
                self.cache[self.place(sequence, position)] = mix(
                    before, token, self.worked(sequence, position)
                )
                self.salts[sequence.block_ids[position // self.kv_block]] = sequence.salt
        return [self.sample(row) for row in plan.rows if row.samples]

    def sample(self, row: Row) -> list[int]:
        """Return the token behind each of a row's last ones, up to the first not drafted right."""
        first = row.start + row.count - row.sampled
        ids = []
        for place, guess in enumerate((*row.draft, None), first):
            ids.append(self.at(row.sequence, place) % self.vocabulary)
            if ids[-1] != guess:
                break
        return ids

    def place(self, sequence: TokenSequence, position: int) -> tuple[int, int]:
        """Return block and offset of a token."""
        return sequence.block_ids[position // self.kv_block], position % self.kv_block

    def at(self, sequence: TokenSequence, position: int) -> int:
        """Return what the cache holds of a sequence's token."""
        return self.cache[self.place(sequence, position)]

    def check(self, sequence: TokenSequence) -> None:
        """All that a sequence counts as computed is its own, and was written under its salt."""
        state = 0
        for position, token in enumerate(sequence.tokens(0, sequence.computed)):
            state = mix(state, token, self.worked(sequence, position))
            assert self.at(sequence, position) == state
        for block in sequence.block_ids[: -(-sequence.computed // self.kv_block)]:
            assert self.salts[block] == sequence.salt

    def worked(self, sequence: TokenSequence, position: int) -> int:
        """Return a number for what works on a token beside the backbone, and for its RoPE."""
        prompt = len(sequence.prompt_ids)
        length = max(prompt if self.rope.grows else sequence.length, position + 1)
        if self.rope.grows:
            frequencies = max(self.rope.first, length)
        else:
            frequencies = int(length > (self.rope.switch or length))
        adapted = bool(sequence.adapters) and position >= sequence.active_from
        content = (sequence.digests, sequence.scales) if adapted else ()
        return crc32(repr((content, frequencies)).encode())

    @classmethod
    def answer(
        cls, job: GenerationRequest, rope: RowRope = PLAIN, *, vocabulary: int = STATES
    ) -> list[int]:
        """Tokens that an undisturbed run gives."""
        model, sequence = cls(1, rope), TokenSequence(job)
        while sequence.remaining:
            state = 0
            for position, token in enumerate(sequence.tokens(0, sequence.length)):
                state = mix(state, token, model.worked(sequence, position))
            sequence.append((state % vocabulary,))
        return sequence.output_ids


def mix(before: int, token: int, worked: int) -> int:
    """Make one number of three."""
    return (before * 31 + token + 1 + worked) % STATES
