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
from typing import TYPE_CHECKING, Protocol, Self

import numpy as np
import torch

from aril.worker.engine.feedback import NO_FEEDBACK, Feedback
from aril.worker.engine.fetch import Fetch
from aril.worker.engine.one_copy import one_copy
from aril.worker.engine.sampler import FAILED, INVALID, Sampled, launch, read, sample
from aril.worker.engine.token_masks import TokenMasks
from aril.worker.observe.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

    from aril.schemas import Sampling, TokenLogprobs
    from aril.worker.constraints.matcher import Matcher
    from aril.worker.engine.filled_blocks import FilledBlocks, Forwarded
    from aril.worker.engine.sequence import TokenSequence
    from aril.worker.engine.step_plan import Row, StepPlan
    from aril.worker.engine.step_settings import SamplingRow

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


class Forward(Protocol):
    """Runs the model."""

    def __call__(self, plan: StepPlan, feedback: Feedback = ..., /) -> Forwarded:
        """Run a step, some of whose tokens the device may know alone."""


@dataclass(frozen=True, slots=True, eq=False)
class Launched:
    """A step that the device was asked for, and whose tokens nobody has read."""

    plan: StepPlan
    blocks: list[int]  # of the cache, that it fills
    ids: Tensor | None  # int64 [rows that sample], there; 0 for none. None: they were read already
    read: Callable[[], Sampled]  # waits for the step


class StepSampler:
    """Samples what steps plan; `forward` runs the model and may be asked twice for a step.

    What a step found of the blocks that it has filled comes to `filled`, read with the tokens.
    """

    def __init__(self, forward: Forward, filled: FilledBlocks) -> None:
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
        self._begin_masks([row.sequence for row in rows])
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

    def launch(self, plan: StepPlan, feedback: Feedback = NO_FEEDBACK) -> Launched:
        """Ask the device to run a step without drafts and to sample, and wait for nothing.

        What the tokens follow from is looked at now: the settings, how many there are, the
        constraint where it is.
        """
        rows = [row.sequence for row in plan.rows if row.samples]
        self._begin_masks(rows)
        whole, blocks, beside = self._forward(plan, feedback)
        logits = _to_sample(plan, whole, tell=True)
        try:
            found = launch(logits, rows, self._masks)
        except Exception:
            named = {row.key: row for row in rows}
            sampled = self._sample_each(plan, [*range(len(rows))], named, feedback)
            if _hopeless(sampled):
                raise
            return Launched(plan, blocks, None, lambda: sampled)
        # An excuse is no id, and whoever has one goes no further.
        ids = found[: len(rows)].long().clamp_(min=0)
        fetch = Fetch(found if beside is None else torch.cat([found, beside.double()]))

        def read_all() -> Sampled:
            values = fetch.read()
            return read(values[: len(found)], rows)._replace(beside=values[len(found) :])

        return Launched(plan, blocks, ids, read_all)

    def read(self, step: Launched, take: Take) -> list[int]:
        """Give `take` the tokens of a step that was launched; return one of each row that samples.

        Also of those that `take` has no use for.
        """
        sampled = step.read()
        self._filled.note(step.blocks, sampled.beside)
        rows = (row.sequence for row in step.plan.rows if row.samples)
        for sequence, token, logprobs in zip(rows, sampled.ids, sampled.logprobs, strict=True):
            take(sequence, token, logprobs)
        return sampled.ids

    def _begin_masks(self, rows: Sequence[TokenSequence]) -> None:
        """Have the masks of constrained rows filled while the model runs."""
        if self._masks is not None:
            self._masks.begin([row for row in rows if row.matcher is not None])

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
            sampled = self._sample_each(plan, places, rows)
            if _hopeless(sampled):
                raise
            return sampled

    def _sample_each(
        self,
        plan: StepPlan,
        places: list[int],
        rows: Mapping[int, SamplingRow],
        feedback: Feedback = NO_FEEDBACK,
    ) -> Sampled:
        """Sample row by row: they do not see each other, so each gets what it would have got."""
        # The logits may be overwritten; and a device that is broken raises here.
        whole, _, beside = self._forward(plan, feedback)
        logits = _picked(_to_sample(plan, whole, tell=False), places)
        each = [self._sample_alone(logits[i : i + 1], *row) for i, row in enumerate(rows.items())]
        told = () if beside is None else beside.tolist()
        return Sampled([one.ids[0] for one in each], [one.logprobs[0] for one in each], told)

    def _sample_alone(self, logits: Tensor, key: int, row: SamplingRow) -> Sampled:
        try:
            return sample(logits, [row], self._masks)
        except Exception:
            log.exception("sampling_failed", key=key)
            return Sampled([FAILED], [None])


def _hopeless(sampled: Sampled) -> bool:
    """Whether no row could be sampled from, of several."""
    return len(sampled.ids) > 1 and set(sampled.ids) == {FAILED}


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
