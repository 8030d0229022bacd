"""What metrics are told of a job on its way: each fact once, however often the job begins.

A job begins again after an append that failed, and on another worker after a crash. What was
counted then is not counted now: how long it waited, its first token, its end. Its tokens are
counted where they are made (`aril_tokens_total`), and once more where it ends, by tenant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aril.worker.engine.mixture import members_of
from aril.worker.observe.metrics import ANSWERED_BEFORE, Ended, Place
from aril.worker.stages import Stage

if TYPE_CHECKING:
    from aril.worker.job import Entry
    from aril.worker.observe.metrics import Metrics

PLACES: Final[dict[Stage, Place]] = {
    Stage.WAITING: "waiting",
    Stage.CLAIMING: "waiting",
    Stage.PARKED: "waiting",
    Stage.PREPARING: "waiting",
    Stage.FETCHING: "waiting",
    Stage.GATHERING: "waiting",
    Stage.DISPLACED: "waiting",
    Stage.RUNNING: "running",
}


def count_move(entry: Entry, before: Stage, metrics: Metrics) -> None:
    """Count a job that came from a stage to the one that it is at."""
    left, come = PLACES.get(before), PLACES.get(entry.stage)
    if left != come:
        metrics.moved(entry.tenant, entry.cost, left, come)


def count_begun(entry: Entry, metrics: Metrics) -> None:
    """Count a job that enters the engine."""
    metrics.prompt_tokens.inc(len(entry.prompt_ids))
    if entry.begun:
        return
    entry.begun = True
    if not entry.inherited:
        metrics.queue_seconds.observe(_seconds(entry, entry.submitted_ms))
    for adapter in members_of(entry.adapter):
        metrics.adapters.begun(f"{adapter.owner}/{adapter.name}", adapter.digest)


def count_tokens(entry: Entry, count: int, now_ms: float, metrics: Metrics) -> None:
    """Count tokens that a step brought, at a time in milliseconds since the epoch."""
    metrics.tokens.inc(count)
    if entry.first_token_ms:
        gap_ms = max(0.0, now_ms - entry.last_token_ms)
        metrics.inter_token_seconds.observe(gap_ms / 1_000)
    else:
        entry.first_token_ms = now_ms
        if not (entry.first_token_told or entry.inherited):
            entry.first_token_told = True
            metrics.ttft_seconds.observe(_seconds(entry, now_ms))
    entry.last_token_ms = now_ms


def ended(entry: Entry, now_ms: float) -> Ended:
    """Return what is told of a job that is settled."""
    error, job = entry.error, entry.job
    end = error.code.value if error is not None else entry.finish
    here = entry.told_tokens - entry.inherited
    timed = bool(entry.first_token_ms)
    span_ms = max(0.0, entry.last_token_ms - entry.first_token_ms)
    return Ended(
        tenant=entry.tenant,
        end=end or ANSWERED_BEFORE,
        failed=error is not None,
        seconds=_seconds(entry, now_ms),
        prompt_tokens=len(entry.prompt_ids),
        tokens=entry.told_tokens,
        operation="unknown"
        if job is None
        else "text_completion"
        if job.messages is None
        else "chat",
        first_token_seconds=_seconds(entry, entry.first_token_ms)
        if timed and not entry.inherited
        else None,
        token_seconds=span_ms / 1_000 / (here - 1) if timed and here > 1 else None,
    )


def _seconds(entry: Entry, until_ms: float) -> float:
    """Return the time from a job's log-append time on."""
    return max(0.0, until_ms - entry.record.timestamp_ms) / 1_000
