"""One running answer: its tokens and how many of them are in the cache."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final

from aril.worker.engine.mixture import Mixture, members_of
from aril.worker.engine.prompt_rows import PromptRows

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aril.worker.constraints.matcher import Matcher
    from aril.worker.engine.guessing import Guessing
    from aril.worker.engine.ngrams import NgramIndex
    from aril.worker.engine.request import GenerationRequest

BACKBONE = -1  # the slot of rows without an adapter

UNREAD: Final = -4
"""In place of the id of a token that a step in flight samples (in_flight.py); no id, and none of
the sampler's excuses."""


class TokenSequence:
    """Prompt and output tokens of one request; everything else is derived.

    `computed` counts the leading tokens (prompt, then output) whose keys and values are in the
    cache, in the blocks `block_ids`. Preemption sets it to 0: prompt and output are then computed
    again like one long prompt, or found there still, and sampling goes on at the same index.
    """

    __slots__ = (
        "active_from",
        "adapters",
        "arrival",
        "block_ids",
        "block_names",
        "computed",
        "end_ids",
        "guessing",
        "held_ids",
        "key",
        "matcher",
        "ngrams",
        "output_ids",
        "prompt_ids",
        "prompt_rows",
        "salt",
        "sampling",
        "scales",
        "seed",
        "slots",
        "told",
    )

    def __init__(self, request: GenerationRequest, arrival: int = 0) -> None:
        self.key = request.key
        self.prompt_ids = request.prompt_ids
        self.sampling = request.sampling
        self.seed = request.seed
        adapter, scale = request.adapter, request.adapter_scale
        self.adapters = members_of(adapter)
        weights = adapter.weights if isinstance(adapter, Mixture) else (1.0,) * len(self.adapters)
        self.scales = tuple(scale * weight for weight in weights)  # one an adapter
        self.active_from = request.active_from  # tokens before are the backbone's
        self.arrival = arrival  # seniority: position in the order of submission
        self.output_ids: list[int] = list(request.resume_ids)
        self.held_ids: list[int] = []  # that follow once the prompt was told of
        self.end_ids: frozenset[int] = frozenset()  # tokens that end the answer
        self.matcher: Matcher | None = None  # where the answer is in its constraint
        self.computed = 0
        self.block_ids: list[int] = []
        self.salt = request.salt
        self.block_names: list[bytes] = []  # of full blocks from the first on (prefix_cache.py)
        self.slots: tuple[int, ...] = ()  # one an adapter, while they are held
        self.told = 0  # leading tokens whose logits were taken for the prompt's log probabilities
        asked = request.sampling.prompt_logprobs
        self.prompt_rows = None if asked is None else PromptRows(asked)
        self.guessing: Guessing | None = None  # once a draft could have been made (speculation.py)
        self.ngrams: NgramIndex | None = None  # same

    def __repr__(self) -> str:
        return (
            f"TokenSequence(key={self.key}, prompt={len(self.prompt_ids)}, "
            f"output={len(self.output_ids)}, computed={self.computed}, slots={self.slots})"
        )

    @property
    def digests(self) -> tuple[str, ...]:
        """Identities of the adapters' contents; none on the backbone."""
        return tuple(adapter.digest for adapter in self.adapters)

    @property
    def index(self) -> int:
        """Index in the answer of the token that is sampled next."""
        return len(self.output_ids)

    @property
    def length(self) -> int:
        """Tokens that exist, prompt and output."""
        return len(self.prompt_ids) + len(self.output_ids)

    @property
    def known(self) -> int:
        """Leading tokens whose ids are here; one less than there are while the last is UNREAD."""
        return self.length - (self.output_ids[-1:] == [UNREAD])

    @property
    def pending(self) -> int:
        """Tokens that must pass through the model before the next one can be sampled."""
        return self.length - self.computed

    @property
    def untold(self) -> int:
        """Tokens of the prompt, all but its last, whose logits are still to be told of."""
        return 0 if self.prompt_rows is None else len(self.prompt_ids) - 1 - self.told

    @property
    def decoding(self) -> bool:
        """Whether one step with one row of one token samples the next token."""
        return self.pending == 1

    @property
    def remaining(self) -> int:
        """Tokens that may still be sampled before `max_tokens` ends the answer."""
        return self.sampling.longest - len(self.output_ids)

    def blocks_missing(self, count: int, block: int) -> int:
        """Blocks of so many tokens to allocate before `count` more tokens fit into the cache."""
        return max(0, -(-(self.computed + count) // block) - len(self.block_ids))

    def growth(self, block: int) -> int:
        """Blocks that it needs soon: for all its tokens and the next block's worth."""
        final = len(self.prompt_ids) + self.sampling.longest
        return self.blocks_missing(min(self.length + block, final) - self.computed, block)

    def tokens(self, start: int, count: int) -> list[int]:
        """Token ids `start` to `start + count` of prompt and output together."""
        prompt = self.prompt_ids
        if start >= len(prompt):
            offset = start - len(prompt)
            return self.output_ids[offset : offset + count]
        ids = list(prompt[start : start + count])
        ids.extend(islice(self.output_ids, count - len(ids)))
        return ids

    def advance(self, count: int) -> None:
        """Note that `count` more tokens are in the cache."""
        if not 0 < count <= self.pending:
            raise ValueError(f"cannot advance {self!r} by {count}")
        self.computed += count

    def append(self, ids: Iterable[int]) -> None:
        """Append sampled tokens."""
        self.output_ids.extend(ids)

    def put(self, place: int, token: int) -> None:
        """Put an id in the place of prompt and output where one was UNREAD."""
        at = place - len(self.prompt_ids)
        if self.output_ids[at] != UNREAD:
            raise ValueError(f"token {place} of {self!r} is known")
        self.output_ids[at] = token

    def hold_back(self) -> None:
        """Let the answer's tokens come later: until then it is the prompt alone."""
        self.held_ids, self.output_ids = self.output_ids, []

    def let_go(self) -> None:
        """Let the tokens follow that were held back."""
        self.output_ids, self.held_ids = self.held_ids, []

    def reset(self) -> None:
        """Forget what is in the cache; the caller has freed the blocks and the slots."""
        self.forget()
        self.slots = ()

    def forget(self) -> None:
        """Forget what is in the cache and go on; the caller has freed the blocks."""
        self.computed = 0
        self.block_ids = []
