"""Bugs to put into a worker, each one that somebody has had: the fault harness has to notice."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import worker.consumer
from worker.answers import Answers
from worker.claims import Claims, Owned
from worker.commits import membership_of

if TYPE_CHECKING:
    from worker.engine.request import Output
    from worker.jobs import Entry
    from worker.partitions import Membership


def _commit_early() -> None:
    """Count a job as finished with its first token."""
    tokens, settle = Answers.tokens, Answers._settle

    def patched(self: Answers, entry: Entry, output: Output) -> None:
        tokens(self, entry, output)
        if not entry.settled:
            self._jobs.settled(entry)

    async def settled(self: Answers, entry: Entry) -> None:
        if not entry.settled:
            await settle(self, entry)

    Answers.tokens = patched  # type: ignore[method-assign]
    Answers._settle = settled  # type: ignore[method-assign]


def _never_claim() -> None:
    """Take every job for a fresh one."""

    async def patched(self: Claims, entry: Entry) -> Owned:  # noqa: ARG001 - the original's
        entry.owned = True
        return Owned.OURS

    Claims.own = patched  # type: ignore[method-assign]


def _never_read_back() -> None:
    """Claim a job, and begin it from its first token all the same."""

    async def patched(self: Claims, source: Any, batch: Any) -> None:  # noqa: ARG001 - same
        for each in batch:
            each.prefix_lost = True
            each.takeover.prefix_unknown()

    Claims._read_back = patched  # type: ignore[method-assign]


def _one_generation() -> None:
    """Write under the same epoch as every other worker."""

    def patched(consumer: Any, number: int) -> Membership | None:
        found = membership_of(consumer, number)
        return None if found is None else replace(found, generation=1)

    worker.consumer.membership_of = patched  # type: ignore[attr-defined]


BUGS = {
    "commit_early": _commit_early,
    "never_claim": _never_claim,
    "never_read_back": _never_read_back,
    "one_generation": _one_generation,
}
