"""Logits to tokens, for rows whose settings differ, in one batch.

Order of processing as in vLLM: biases and penalties, constraints; then temperature, min-p, top-k,
top-p, each on the distribution that the one before left. A row's token is found by inverting the
cumulative distribution at one uniform number, with tokens in descending order of logit and equal
ones by ascending id. So it is a function of the row's logits, history, seed and index: neither the
row's position nor its neighbours matter, and another worker draws the same.

A device is told everything in one copy and is read once: `launch` asks nothing back, and no shape
in it depends on what it computes.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import torch

from aril.schemas import TokenLogprobs
from aril.worker.engine.inversion import invert
from aril.worker.engine.ordered import top_keyed, top_ordered
from aril.worker.engine.penalties import shift_
from aril.worker.engine.selection import Cut, select
from aril.worker.engine.step_settings import SamplingRow, StepSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from aril.worker.engine.inversion import Draws
    from aril.worker.engine.token_masks import TokenMasks

INVALID: Final = -1
"""In place of a token id where the logits are no distribution (NaN or infinite)."""

FAILED: Final = -2
"""In place of a token id, by whoever samples, where `sample` raised."""

DEAD: Final = -3
"""In place of a token id where a row's constraint lets no token come."""

_LOWEST: Final = torch.finfo(torch.float32).min


class Sampled(NamedTuple):
    """One entry a row. `logprobs` is None for rows that did not ask."""

    ids: list[int]
    logprobs: list[TokenLogprobs | None]
    beside: Sequence[float] = ()  # what else was read


def sample(
    logits: Tensor,
    rows: Sequence[SamplingRow],
    masks: TokenMasks | None = None,
    beside: Tensor | None = None,
) -> Sampled:
    """Choose one token a row.

    logits: float32 [n, vocab], n = len(rows); overwritten. Temperature 0 takes the largest
    logit, of equal ones the lowest id. Log probabilities are those of the model's own
    distribution, before penalties and temperature, as OpenAI and vLLM (`raw_logprobs`) report
    them; the `top` list has no tokens of probability 0, and one that was chosen all the same has
    float32's lowest number. Raises ValueError on a wrong shape or dtype. A row whose logits have
    NaN or plus infinity, or nothing finite, gets INVALID and leaves the others alone; one whose
    constraint lets nothing come gets DEAD; any other row gets a token, whatever its settings.
    `masks` are needed where a row has a matcher. `beside` [m] are other numbers on the same device
    that are to be read: it is waited for once.
    """
    found = launch(logits, rows, masks)
    if beside is None:
        return read(found.tolist(), rows)
    values = torch.cat([found, beside.double()]).tolist()
    return read(values[: len(found)], rows)._replace(beside=values[len(found) :])


def launch(logits: Tensor, rows: Sequence[SamplingRow], masks: TokenMasks | None = None) -> Tensor:
    """Do what `sample` does and leave the result where the logits are, for `read`.

    Returns float64, one dimension: the ids [n]; of the `a` rows that asked for log probabilities,
    and the most that one of them wants, `k`: the chosen tokens' [a], the top ones' [a, k], the top
    ids [a, k]. One copy to the device, and nothing is waited for.
    """
    if logits.ndim != 2 or len(logits) != len(rows) or logits.dtype != torch.float32:  # noqa: PLR2004 - [n, vocab]
        raise ValueError(
            f"logits must be float32 [{len(rows)}, vocab], got {logits.dtype} {tuple(logits.shape)}"
        )
    if not rows:
        return logits.new_zeros(0, dtype=torch.float64)
    logits = logits.contiguous()
    told = StepSettings.of(rows, logits.shape[1], masks)
    here = told.on(logits.device)
    usable = logits.amax(dim=1).isfinite()
    raw = _pick(logits, here.asked).log_softmax(dim=1) if len(told.asked) else None
    if told.shifts:
        shift_(logits, here.shifts, here.penalties)
    ids = torch.full_like(usable, INVALID, dtype=torch.int64)
    alive = usable
    if len(told.constrained) and masks is not None:
        masks.apply_(logits, here.constrained, here.bits)
        alive = logits.amax(dim=1).isfinite()
    if len(told.greedy):  # of equal maxima, `max` documents the first
        ids.index_copy_(0, here.greedy, _pick(logits, here.greedy).max(dim=1).indices)
    if len(told.drawn):
        ids.index_copy_(0, here.drawn, _draw(logits, told, here, usable & alive))
    ids = ids.masked_fill_(~alive, DEAD).masked_fill_(~usable, INVALID)
    if raw is None:
        return ids.double()
    most = min(max(1, *(row.sampling.logprobs or 0 for row in rows)), logits.shape[1])
    return torch.cat([ids.double(), *_told(raw, ids.index_select(0, here.asked), most)])


def read(values: list[float], rows: Sequence[SamplingRow]) -> Sampled:
    """Turn what `launch` made into ids and log probabilities."""
    ids = [*map(int, values[: len(rows)])]
    wanted = [row.sampling.logprobs for row in rows]
    asked = sum(each is not None for each in wanted)
    most = (len(values) - len(rows) - asked) // max(1, 2 * asked)
    chosen = len(ids)
    top, columns = chosen + asked, chosen + asked + asked * most
    logprobs: list[TokenLogprobs | None] = [None] * len(rows)
    for i, count in enumerate(wanted):
        if count is None:
            continue
        shown = min(count, most)
        pairs = zip(values[columns : columns + shown], values[top : top + shown], strict=True)
        likely = tuple((int(token), value) for token, value in pairs if value > -math.inf)
        if ids[i] >= 0:
            logprobs[i] = TokenLogprobs(max(values[chosen], _LOWEST), likely)
        chosen, top, columns = chosen + 1, top + most, columns + most
    return Sampled(ids, logprobs)


def on_host(logits: Tensor) -> bool:
    """Whether reading costs nothing here."""
    return logits.device.type == "cpu"


def _pick(logits: Tensor, places: Tensor) -> Tensor:
    return logits if len(places) == len(logits) else logits.index_select(0, places)


def _draw(logits: Tensor, told: StepSettings, here: StepSettings, some: Tensor) -> Tensor:
    """Invert the drawn rows' distributions at their numbers; `some` [n] have one."""
    if on_host(logits):
        return _draw_each(logits, told.drawn.tolist(), told.draws, some.tolist())
    return invert(_pick(logits, here.drawn), here.draws, int(told.draws.top_k.max()))


def _draw_each(logits: Tensor, places: list[int], draws: Draws, some: list[bool]) -> Tensor:
    """Do on a CPU what `invert` does on a device, without ordering whole rows; overwrites."""
    found = []
    p = torch.empty(logits.shape[1])  # for each row again: fresh pages cost more than arithmetic
    temperatures = draws.temperature.astype(np.float32)
    cuts = zip(*(each.tolist() for each in draws[1:]), strict=True)
    for place, temperature, cut in zip(places, temperatures, cuts, strict=True):
        if not some[place]:
            found.append(INVALID)
            continue
        # From the largest logit down nothing can overflow upwards, however large the logits and
        # small the temperature.
        scaled = logits[place].numpy()
        with np.errstate(over="ignore"):
            scaled -= scaled.max()
            if temperature != 1:
                scaled /= temperature
        torch.softmax(logits[place], 0, out=p)
        found.append(select(scaled, p.numpy(), Cut(*cut)))
    return torch.tensor(found)


def _told(raw: Tensor, ids: Tensor, most: int) -> list[Tensor]:
    """Pick the chosen and the most likely tokens' entries out of raw [a, vocab], as float64."""
    chosen = raw.gather(1, ids.clamp(min=0)[:, None])[:, 0]
    columns = top_ordered(raw, most)[1] if on_host(raw) else top_keyed(raw, most)
    top = raw.gather(1, columns)
    return [chosen.double(), top.flatten().double(), columns.flatten().double()]
