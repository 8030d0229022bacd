"""Logits to tokens, for rows whose settings differ, in one batch.

Order of processing as in vLLM: biases and penalties, constraints; then temperature, min-p, top-k,
top-p, each on the distribution that the one before left. A row's token is found by inverting the
cumulative distribution at one uniform number, with tokens in descending order of logit and equal
ones by ascending id. So it is a function of the row's logits, history, seed and index: neither the
row's position nor its neighbours matter, and another worker draws the same.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import torch

from schemas import Sampling, TokenLogprobs
from worker.engine.binned import Cut, invert
from worker.engine.noise import uniform
from worker.engine.ordered import top_ordered
from worker.engine.penalties import bias_, has_penalties, penalise_

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from worker.constraints.matcher import Matcher
    from worker.engine.token_masks import TokenMasks

INVALID: Final = -1
"""In place of a token id where the logits are no distribution (NaN or infinite)."""

FAILED: Final = -2
"""In place of a token id, by whoever samples, where `sample` raised."""

DEAD: Final = -3
"""In place of a token id where a row's constraint lets no token come."""

_LOWEST: Final = torch.finfo(torch.float32).min

_GREEDY_BELOW: Final = 1e-5  # temperatures under it are greedy, as in vLLM

# Candidates that are looked at first, then for the rows that need more, before all of them are;
# on a CPU these rows are inverted by bins instead.
_CANDIDATES: Final = (64, 4096)


class SamplingRow(Protocol):
    """What sampling needs to know of a sequence."""

    prompt_ids: tuple[int, ...]
    output_ids: list[int]
    sampling: Sampling
    seed: int

    @property
    def matcher(self) -> Matcher | None:
        """Where the answer is in its constraint, if it has one."""

    @property
    def end_ids(self) -> frozenset[int]:
        """What ends the answer, and may not before `min_tokens`."""

    @property
    def index(self) -> int:
        """Index in the answer of the token that is sampled."""


class Sampled(NamedTuple):
    """One entry a row. `logprobs` is None for rows that did not ask."""

    ids: list[int]
    logprobs: list[TokenLogprobs | None]


def sample(logits: Tensor, rows: Sequence[SamplingRow], masks: TokenMasks | None = None) -> Sampled:
    """Choose one token a row.

    logits: float32 [n, vocab], n = len(rows); overwritten. Temperature 0 takes the largest
    logit, of equal ones the lowest id. Log probabilities are those of the model's own
    distribution, before penalties and temperature, as OpenAI and vLLM (`raw_logprobs`) report
    them; the `top` list has no tokens of probability 0, and one that was chosen all the same has
    float32's lowest number. Raises ValueError on a wrong shape or dtype. A row whose logits have
    NaN or plus infinity, or nothing finite, gets INVALID and leaves the others alone; one whose
    constraint lets nothing come gets DEAD; any other row gets a token, whatever its settings.
    `masks` are needed where a row has a matcher.
    """
    if logits.ndim != 2 or len(logits) != len(rows) or logits.dtype != torch.float32:  # noqa: PLR2004 - [n, vocab]
        raise ValueError(
            f"logits must be float32 [{len(rows)}, vocab], got {logits.dtype} {tuple(logits.shape)}"
        )
    asked = [i for i, row in enumerate(rows) if row.sampling.logprobs is not None]
    raw = logits[asked].log_softmax(dim=1) if asked else None
    ids = _shape_(logits, rows, masks)
    greedy = [i for i, row in enumerate(rows) if ids[i] >= 0 and _greedy(row.sampling)]
    if greedy:
        for i, token in zip(greedy, _pick(logits, greedy).max(dim=1).indices.tolist(), strict=True):
            ids[i] = token  # of equal maxima, `max` documents the first
    drawn = [i for i, row in enumerate(rows) if ids[i] >= 0 and not _greedy(row.sampling)]
    if drawn:
        tokens = _draw(_pick(logits, drawn), [rows[i] for i in drawn])
        for i, token in zip(drawn, tokens, strict=True):
            ids[i] = token
    logprobs: list[TokenLogprobs | None] = [None] * len(rows)
    if raw is not None:
        wanted = [rows[i].sampling.logprobs or 0 for i in asked]
        for i, entry in zip(asked, _logprobs(raw, [ids[i] for i in asked], wanted), strict=True):
            logprobs[i] = entry
    return Sampled(ids, logprobs)


def _shape_(logits: Tensor, rows: Sequence[SamplingRow], masks: TokenMasks | None) -> list[int]:
    """Shift logits and mask them, as rows ask; return 0 for each row, or INVALID, or DEAD."""
    ids = [0 if finite else INVALID for finite in logits.amax(dim=1).isfinite().tolist()]
    for i, row in enumerate(rows):
        if ids[i] != INVALID:
            _shift(logits[i], row)
    constrained = [
        (i, row) for i, row in enumerate(rows) if row.matcher is not None and ids[i] != INVALID
    ]
    if constrained:
        if masks is None:
            raise ValueError("constrained rows need masks")
        for i in masks.apply_(logits, constrained):
            ids[i] = DEAD
    return ids


def _shift(logits: Tensor, row: SamplingRow) -> None:
    if row.sampling.logit_bias or row.index < row.sampling.min_tokens:
        bias_(logits, row.sampling, row.index, row.end_ids)
    if has_penalties(row.sampling):
        penalise_(logits, row.sampling, row.prompt_ids, row.output_ids)


def _pick(logits: Tensor, rows: list[int]) -> Tensor:
    return logits if len(rows) == len(logits) else logits[rows]


def _greedy(sampling: Sampling) -> bool:
    return sampling.temperature < _GREEDY_BELOW or sampling.top_k == 1


def _draw(logits: Tensor, rows: list[SamplingRow]) -> list[int]:
    """Invert each row's distribution at its uniform number: [m, vocab] -> m ids; overwrites."""
    vocab = logits.shape[1]
    settings = _Settings.of(rows, vocab).to(logits.device)
    # In place: fresh pages cost more than the arithmetic. From the largest logit down nothing can
    # overflow upwards, however large the logits and small the temperature.
    scaled = logits.sub_(logits.amax(dim=1, keepdim=True)).div_(settings.temperature[:, None])
    probabilities = scaled.softmax(dim=1)  # row by row, unlike a sum, whose order is by shape
    chosen = [INVALID] * len(rows)
    todo = torch.arange(len(rows), device=logits.device)
    for size in (*(size for size in _CANDIDATES if size < vocab), vocab):
        ids = top_ordered(scaled, size)[1]
        position, found = _invert(probabilities.gather(1, ids).double(), settings, vocab)
        tokens = ids.gather(1, position[:, None])[:, 0]
        for i, token, final in zip(todo.tolist(), tokens.tolist(), found.tolist(), strict=True):
            chosen[i] = token if final else INVALID
        rest = ~found
        if INVALID not in chosen:
            break
        if logits.device.type == "cpu":
            cuts = settings.cuts()
            for i in rest.nonzero()[:, 0].tolist():
                chosen[i] = invert(scaled[i].numpy(), probabilities[i].numpy(), cuts[i])
            break
        todo, scaled, probabilities = todo[rest], scaled[rest], probabilities[rest]
        settings = _Settings(*(tensor[rest] for tensor in settings))
    return chosen


class _Settings(NamedTuple):
    """Sampling settings of m rows, each [m]; what is off has the value that cuts nothing."""

    temperature: Tensor  # float32
    min_p: Tensor  # float64, as all that follow but top_k
    top_k: Tensor  # int64
    top_p: Tensor
    uniform: Tensor

    @classmethod
    def of(cls, rows: list[SamplingRow], vocab: int) -> _Settings:
        all_sampling = [row.sampling for row in rows]
        return cls(
            torch.tensor([sampling.temperature for sampling in all_sampling]),
            torch.tensor([sampling.min_p for sampling in all_sampling], dtype=torch.float64),
            torch.tensor([min(sampling.top_k or vocab, vocab) for sampling in all_sampling]),
            torch.tensor([sampling.top_p for sampling in all_sampling], dtype=torch.float64),
            torch.tensor([uniform(row.seed, row.index) for row in rows], dtype=torch.float64),
        )

    def to(self, device: torch.device) -> _Settings:
        return _Settings(*(tensor.to(device, non_blocking=True) for tensor in self))

    def cuts(self) -> list[Cut]:
        return list(
            map(
                Cut,
                self.min_p.tolist(),
                self.top_k.tolist(),
                self.top_p.tolist(),
                self.uniform.tolist(),
            )
        )


def _invert(p: Tensor, settings: _Settings, vocab: int) -> tuple[Tensor, Tensor]:
    """Find the candidate at which each row's cumulative distribution passes its uniform number.

    p: float64 [m, size], each row's largest probabilities in order. Returns positions [m], and
    whether they are final [m]: where the answer lies among or depends on tokens that are not in p,
    the row has to come again with more of them.
    """
    size = p.shape[1]
    cumulative = p.cumsum(dim=1)
    # Rows are sorted: what would be counted is searched.
    likely = _count(-p, -settings.min_p * p[:, 0], equal=True)
    left = likely.minimum(settings.top_k)
    left_known = (likely < size) | (settings.top_k <= size)
    uncut = (settings.min_p == 0) & (settings.top_k == vocab)  # so the mass that is left is 1
    mass = _mass(cumulative, left, left_known)
    nucleus = 1 + _count(cumulative, settings.top_p * mass, equal=False)
    kept_known = left_known | (uncut & (nucleus <= size))
    mass = _mass(cumulative, nucleus.minimum(left), kept_known)
    # At most 1 - 2**-53, times the mass: rounded, this is always below the mass.
    target = settings.uniform * mass
    position = _count(cumulative, target, equal=True)
    final = kept_known | (uncut & (settings.top_p == 1) & (position < size))
    return position.clamp(max=size - 1), final


def _count(ascending: Tensor, bound: Tensor, *, equal: bool) -> Tensor:
    """How many entries of each row [m, size] are below the row's bound [m], or equal to it."""
    return torch.searchsorted(ascending, bound[:, None], right=equal)[:, 0]


def _mass(cumulative: Tensor, count: Tensor, known: Tensor) -> Tensor:
    """Sum of the first `count` probabilities where that is known, else 1, the sum of all."""
    return cumulative.gather(1, count[:, None] - 1)[:, 0].where(known, 1.0)


def _logprobs(raw: Tensor, ids: list[int], wanted: list[int]) -> list[TokenLogprobs | None]:
    """Pick the chosen and the most likely tokens' entries out of raw [n, vocab]."""
    chosen = raw.gather(1, torch.tensor(ids, device=raw.device).clamp(min=0)[:, None])[:, 0]
    top, columns = top_ordered(raw, max(1, *wanted))
    entries: list[TokenLogprobs | None] = []
    for token, value, count, values, tokens in zip(
        ids, chosen.tolist(), wanted, top.tolist(), columns.tolist(), strict=True
    ):
        pairs = zip(tokens[:count], values[:count], strict=True)
        likely = tuple(pair for pair in pairs if pair[1] > -math.inf)
        entries.append(None if token < 0 else TokenLogprobs(max(value, _LOWEST), likely))
    return entries
