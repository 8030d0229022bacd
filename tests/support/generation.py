"""Generation requests, a pool of adapter slots and a model, all small enough to check by eye."""

from dataclasses import dataclass
from typing import Any

from schemas import Sampling
from worker.engine.mixture import Mixture
from worker.engine.request import GenerationRequest
from worker.engine.scheduler import StepPlan


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
            self.loads.append(digest)
            self.resident[slot] = digest
        slots = tuple(map(self.resident.index, digests))
        for slot in slots:
            self.holders[slot] += 1
        return slots

    def release(self, slots: Any) -> None:
        """Let go; more often than held is a bug of the caller."""
        for slot in slots:
            assert self.holders[slot] > 0
            self.holders[slot] -= 1


class CacheModel:
    """A model whose next token is a function of what its block table holds.

    It keeps token ids where a real one keeps keys and values. A block that two sequences share, a
    gap, or a wrong order after a preemption therefore changes an answer.
    """

    def __init__(self, kv_block: int) -> None:
        self.kv_block = kv_block
        self.cache: dict[tuple[int, int], int] = {}

    def run(self, plan: StepPlan) -> list[int]:
        """Store the plan's tokens, then sample from the rows that do."""
        for row in plan.rows:
            tokens = row.sequence.tokens(row.start, row.count)
            assert len(tokens) == row.count
            for position, token in enumerate(tokens, row.start):
                block = row.sequence.block_ids[position // self.kv_block]
                self.cache[block, position % self.kv_block] = token
        return [
            self.next_token(
                [
                    self.cache[row.sequence.block_ids[at // self.kv_block], at % self.kv_block]
                    for at in range(row.start + row.count)
                ]
            )
            for row in plan.rows
            if row.samples
        ]

    @staticmethod
    def next_token(tokens: list[int]) -> int:
        """Mix all the tokens, in order, into one."""
        mixed = 0
        for token in tokens:
            mixed = (mixed * 31 + token + 1) % 9973
        return mixed

    @classmethod
    def answer(cls, job: GenerationRequest) -> list[int]:
        """Tokens that an undisturbed run gives."""
        tokens = [*job.prompt_ids, *job.resume_ids]
        while len(tokens) < len(job.prompt_ids) + job.sampling.longest:
            tokens.append(cls.next_token(tokens))
        return tokens[len(job.prompt_ids) :]
