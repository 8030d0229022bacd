"""What a job asks of the sampler, on logits of a small vocabulary that may be of any kind."""

from __future__ import annotations

import math
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import torch
from pydantic import ValidationError

from aril.schemas import Sampling, limits
from aril.worker.engine.penalties import has_penalties
from aril.worker.engine.sampler import INVALID, sample
from tests.fuzz.mutate import INTEGERS, bend_tree, chance, pick
from tests.fuzz.target import ACCEPTED, Target, holds
from tests.fuzz.targets.requests import sampling_fields

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random

_SEEDS: Final = tuple(each for each in INTEGERS if 0 <= each <= limits.MAX_SEED)
_LARGEST: Final = torch.finfo(torch.float32).max
_VALUES: Final = (0.0, -0.0, 1.0, -1.0, 20.0, 1e-40, _LARGEST, -_LARGEST, 1e38, -1e38, -math.inf)
_GREEDY_BELOW: Final = 1e-5
_BAD: Final = (math.inf, math.nan)


@dataclass
class _Row:
    """A sequence as the sampler sees it."""

    prompt_ids: tuple[int, ...]
    output_ids: list[int]
    seed: int
    wanted: Any  # the map of a job, perhaps of none that is served
    sampling: Sampling = field(default_factory=Sampling)
    matcher: None = None

    @property
    def index(self) -> int:
        """Index in the answer of the token that is sampled."""
        return len(self.output_ids)

    @property
    def end_ids(self) -> frozenset[int]:
        """What ends the answer; the vocabulary has one token at least."""
        return frozenset({0} & {*self.sampling.stop_token_ids})


class Case(NamedTuple):
    """Rows with their logits, [rows][vocab]."""

    rows: tuple[_Row, ...]
    logits: list[list[float]]


def _make(rng: Random) -> Case:
    vocab = 4_200 if chance(rng, 0.003) else pick(rng, (1, 2, 3, 8, 65, 66, 130))
    rows, logits = [], []
    for _ in range(pick(rng, (1, 1, 2, 3))):
        wanted: Any = sampling_fields(rng)
        if chance(rng, 0.15):
            wanted = bend_tree(rng, wanted)
        prompt = tuple(int(rng.random() * vocab) for _ in range(pick(rng, (1, 3))))
        output = [int(rng.random() * vocab) for _ in range(pick(rng, (0, 0, 2, 9)))]
        rows.append(_Row(prompt, output, pick(rng, _SEEDS), wanted))
        logits.append(_logits(rng, vocab))
    return Case(tuple(rows), logits)


def _logits(rng: Random, vocab: int) -> list[float]:
    kind = rng.random()
    if kind < 0.2:
        return [pick(rng, _VALUES)] * vocab
    if kind < 0.6:
        made = [pick(rng, _VALUES) for _ in range(vocab)]
    else:
        made = [rng.gauss(0, 5) for _ in range(vocab)]
    if kind > 0.95:
        made[int(rng.random() * vocab)] = pick(rng, _BAD)
    return made


def _check(case: Case) -> str:
    kept = []
    for at, row in enumerate(case.rows):
        try:
            row.sampling = Sampling.model_validate(row.wanted)
        except ValidationError:
            continue
        if all(int(each) < len(case.logits[at]) for each in row.sampling.logit_bias):
            kept.append(at)  # others are told that it is beyond the vocabulary
    if not kept:
        return "not_served"
    rows = [case.rows[at] for at in kept]
    raw = torch.tensor([case.logits[at] for at in kept], dtype=torch.float32)
    found = sample(raw.clone(), rows)
    for at, (row, token, told) in enumerate(zip(rows, found.ids, found.logprobs, strict=True)):
        _check_row(raw[at], row.sampling, token, told)
    if len(rows) > 1:
        alone = sample(raw[-1:].clone(), rows[-1:])
        holds(alone.ids == found.ids[-1:], "neighbours do not matter")
        holds(alone.logprobs == found.logprobs[-1:], "nor for what is told")
    return "invalid_logits" if INVALID in found.ids else ACCEPTED


def _check_row(raw: Any, sampling: Sampling, token: int, told: Any) -> None:
    usable = bool(raw.amax().isfinite())
    holds((token == INVALID) == (not usable), "a row gets a token if its logits are any")
    if token == INVALID:
        holds(told is None, "and else nothing is told of it")
        return
    holds(0 <= token < len(raw), "a token is of the vocabulary")
    holds(raw[token] > -math.inf, "one that cannot be is not chosen")
    if not (has_penalties(sampling) or sampling.logit_bias or sampling.min_tokens):
        _check_choice(raw, sampling, token)
    holds((told is not None) == (sampling.logprobs is not None), "who asks is told")
    if told is not None:
        values = [told.chosen, *(value for _, value in told.top)]
        holds(all(map(math.isfinite, values)), "a logarithm is finite")
        holds(len(told.top) <= (sampling.logprobs or 0), "no more than asked")
        ranked = [value for _, value in told.top]
        holds(ranked == sorted(ranked, reverse=True), "the most likely first")
        holds(len({each for each, _ in told.top}) == len(told.top), "no token twice")


def _check_choice(raw: Any, sampling: Sampling, token: int) -> None:
    """Hold a choice against the logits as they are."""
    if sampling.temperature < _GREEDY_BELOW:
        holds(token == int(raw.argmax()), "temperature 0 takes the largest")
        return
    # As they are looked at: logits that differ by less than that can tell are one.
    scaled = (raw - raw.max()) / sampling.temperature
    above = int((scaled > scaled[token]).sum())
    holds(above < (sampling.top_k or len(raw)), "one of the k largest is chosen")


@contextmanager
def _around() -> Iterator[None]:
    """Keep to one thread: rows as short as these gain nothing by more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


TARGET: Final = Target(
    name="samplers",
    about="sampling parameters on odd logits: aril.worker.engine.sampler",
    share=120,
    make=_make,
    check=_check,
    size=lambda case: 8 * sum(map(len, case.logits)),
    factor=64,
    around=_around,
)
