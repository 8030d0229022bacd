"""Generation requests, a pool of adapter slots and a model, all small enough to check by eye."""

from dataclasses import dataclass
from typing import Any

from schemas import Sampling
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
    adapter: str | None = None,
    resume: tuple[int, ...] = (),
    seed: int = 0,
    sampling: Sampling | None = None,
) -> GenerationRequest:
    """Build a request; a prompt given as a number is that many tokens, told apart by the key."""
    if isinstance(prompt, int):
        prompt = tuple(100 * key + position for position in range(prompt))
    weights: Any = None if adapter is None else NamedAdapter(adapter)
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

    def can_acquire(self, adapter: Any) -> bool:
        """Whether there is a slot."""
        return adapter.digest in self.resident or 0 in self.holders

    def acquire(self, adapter: Any) -> int | None:
        """Hold the adapter's slot, or an idle one."""
        if adapter.digest in self.resident:
            slot = self.resident.index(adapter.digest)
        elif 0 in self.holders:
            if adapter.digest in self.broken:
                raise RuntimeError(f"{adapter.digest} is broken")
            slot = min(
                (slot for slot, held in enumerate(self.holders) if not held),
                key=lambda slot: self.resident[slot] is not None,  # empty ones first
            )
            self.loads.append(adapter.digest)
            self.resident[slot] = adapter.digest
        else:
            return None
        self.holders[slot] += 1
        return slot

    def release(self, slot: int) -> None:
        """Let go; more often than held is a bug of the caller."""
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
