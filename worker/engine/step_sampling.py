"""From a step's logits to tokens, with drafts checked on the way.

Every place is sampled as if nothing had been guessed: with the number of its own (seed, index), the
penalties of the tokens before it, the constraint where these have left it. Places of one row come
in turns, since all that depends on the tokens before: first each row's first, then the second of
the rows whose first token is the one that was drafted, and so on. What comes out is what one step
a token would have brought; places behind the first that was guessed wrong are never looked at.

Only what is hidden could come through: attention multiplies a row's later tokens by 0, which is not
0 where a guess makes keys or values infinite. Such a row's logits are no distribution. They are
then told to nobody, and the row is computed again without a draft.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Self

import numpy as np

from worker.engine.one_copy import one_copy
from worker.engine.sampler import FAILED, INVALID, Sampled, sample
from worker.engine.token_masks import TokenMasks
from worker.observe.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch
    from torch import Tensor

    from schemas import Sampling, TokenLogprobs
    from worker.constraints.matcher import Matcher
    from worker.engine.filled_blocks import FilledBlocks, Forwarded
    from worker.engine.sequence import TokenSequence
    from worker.engine.step_plan import Row, StepPlan
    from worker.engine.step_settings import SamplingRow

    Take = Callable[[TokenSequence, int, TokenLogprobs | None], bool]

log = get_logger(__name__)


@dataclass(slots=True)
class Further:
    """A sequence as the sampler is to see it once the first tokens of its draft have come."""

    prompt_ids: tuple[int, ...]
    output_ids: list[int]
    sampling: Sampling
    seed: int
    end_ids: frozenset[int]
    matcher: Matcher | None  # the sequence's own: whoever takes the tokens moves it on

    @classmethod
    def of(cls, own: TokenSequence, came: Sequence[int]) -> Self:
        """Let these tokens have come."""
        ids = [*own.output_ids, *came]
        return cls(own.prompt_ids, ids, own.sampling, own.seed, own.end_ids, own.matcher)

    @property
    def index(self) -> int:
        """Index in the answer of the token that is sampled."""
        return len(self.output_ids)


class StepSampler:
    """Samples what steps plan; `forward` runs the model and may be asked twice for a step.

    What a step found of the blocks that it has filled comes to `filled`, read with the tokens.
    """

    def __init__(self, forward: Callable[[StepPlan], Forwarded], filled: FilledBlocks) -> None:
        self._forward = forward
        self._filled = filled
        self._masks: TokenMasks | None = None  # once there is a constraint

    def expect_constraints(self, rows: int, vocab: int, device: torch.device) -> None:
        """Make room for the masks of so many rows, of so many tokens."""
        if self._masks is None:
            self._masks = TokenMasks(rows, vocab, device)

    def __call__(self, plan: StepPlan, take: Take) -> list[list[int]]:
        """Run the model; return the tokens of each row that samples, see `Scheduler.advance`.

        `take` is given each token when it comes, the sampler's excuses too, and tells whether the
        answer goes on; what a matcher has to know it knows by then.
        """
        rows = [row for row in plan.rows if row.samples]
        if self._masks is not None:  # they are filled while the model runs
            self._masks.begin([r.sequence for r in rows if r.sequence.matcher is not None])
        whole, blocks, unread = self._forward(plan)
        logits = _to_sample(plan, whole, tell=True)
        begins = [*accumulate((row.sampled for row in rows), initial=0)]
        came: list[list[int]] = [[] for _ in rows]
        turn, going = 0, [*range(len(rows))]
        while going:
            seen = {
                rows[each].sequence.key: _seen(rows[each].sequence, came[each]) for each in going
            }
            places = [begins[each] + turn for each in going]
            sampled = self._sample(plan, logits, places, seen, unread)
            if unread is not None:
                self._filled.note(blocks, sampled.beside)
                unread = None
            further = []
            for each, token, logprobs in zip(going, sampled.ids, sampled.logprobs, strict=True):
                row = rows[each]
                if token == INVALID and len(row.draft) > turn:
                    continue
                came[each].append(token)
                goes_on = take(row.sequence, token, logprobs)
                if goes_on and row.draft[turn : turn + 1] == (token,):
                    further.append(each)
            turn, going = turn + 1, further
        if unread is not None:  # nobody samples
            self._filled.note(blocks, unread.tolist())
        return came

    def _sample(
        self,
        plan: StepPlan,
        logits: Tensor,
        places: list[int],
        rows: dict[int, SamplingRow],
        beside: Tensor | None,
    ) -> Sampled:
        """Sample from these places, of rows by their jobs' keys; one by one where that fails.

        `beside` is read along.
        """
        try:
            return sample(_picked(logits, places), [*rows.values()], self._masks, beside)
        except Exception:
            # The logits may be overwritten. Rows do not see each other: each gets what it would
            # have got; and a device that is broken raises here.
            whole, _, beside = self._forward(plan)
            logits = _picked(_to_sample(plan, whole, tell=False), places)
            each = [
                self._sample_alone(logits[i : i + 1], *row) for i, row in enumerate(rows.items())
            ]
            if len(each) > 1 and all(one.ids == [FAILED] for one in each):
                raise
        told = () if beside is None else beside.tolist()
        return Sampled([one.ids[0] for one in each], [one.logprobs[0] for one in each], told)

    def _sample_alone(self, logits: Tensor, key: int, row: SamplingRow) -> Sampled:
        try:
            return sample(logits, [row], self._masks)
        except Exception:
            log.exception("sampling_failed", key=key)
            return Sampled([FAILED], [None])


def _seen(sequence: TokenSequence, came: list[int]) -> SamplingRow:
    return Further.of(sequence, came) if came else sequence


def _picked(logits: Tensor, places: list[int]) -> Tensor:
    """Return rows of the logits, a copy unless it is all of them."""
    if len(places) == len(logits):
        return logits
    (index,) = one_copy([np.array(places, np.int64)], logits.device)
    return logits.index_select(0, index)


def _to_sample(plan: StepPlan, logits: Tensor, *, tell: bool) -> Tensor:
    """Return the logits that are sampled from; prompts are told of the others, or not again."""
    at = 0
    sampled: list[int] = []
    for row in plan.rows:
        if row.tells and tell:
            _tell(row, logits[at : at + len(row.tells)])
        at += len(row.tells)
        sampled += range(at, at + row.sampled)
        at += row.sampled
    return _picked(logits, sampled)


def _tell(row: Row, logits: Tensor) -> None:
    rows = row.sequence.prompt_rows
    if rows is None:
        return
    next_ids = row.sequence.tokens(row.start + row.tells.start + 1, len(row.tells))
    try:
        rows.add(logits, next_ids)
    except Exception:
        log.exception("prompt_not_told", key=row.sequence.key)
        rows.broken = True
