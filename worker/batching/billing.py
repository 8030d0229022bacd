"""What jobs cost their tenants: charged as they are chosen and computed, settled as they go.

The counters decide who is next, the quotas who has had too much.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aril.worker.batching.backlog import Backlog
    from aril.worker.batching.counters import Counters
    from aril.worker.intake.quotas import Quotas
    from aril.worker.job import Entry


class Billing:
    """The bills of a worker's jobs. Lives on the event loop."""

    def __init__(
        self,
        counters: Counters,
        backlog: Backlog[Entry],
        quotas: Quotas,
        take_loads: Callable[[str], int],
    ) -> None:
        """Prepare; `take_loads` tells how many adapters were read for a tenant since it was asked.

        What jobs are charged goes through the `backlog`, where turns hang on it.
        """
        self._counters = counters
        self._backlog = backlog
        self._quotas = quotas
        self._take_loads = take_loads

    def fetched(self, entry: Entry) -> None:
        """Note that what a job needs was fetched."""
        entry.spent += self._counters.prices.load * self._take_loads(entry.tenant)

    def begun(self, entry: Entry) -> None:
        """Note that a job runs for the first time: its prompt is computed."""
        computed = len(entry.prompt_ids) + len(entry.resume_ids)
        entry.spent += self._counters.prices.prompt * computed
        self._quotas.worked(entry.tenant, len(entry.prompt_ids), time.monotonic())

    def brought(self, entry: Entry, ids: Sequence[int]) -> None:
        """Note what a step brought of a running job."""
        entry.spent += self._counters.prices.answer * len(ids)
        self._quotas.worked(entry.tenant, len(ids), time.monotonic())
        if entry.spent > entry.charged:
            self._backlog.settle(entry, entry.spent)

    def answered(self, entry: Entry) -> None:
        """Note that a job's answer is complete, or will not go on."""
        if entry.answered:
            self._counters.answered(entry.tenant, entry.answered)

    def settle(self, entry: Entry) -> None:
        """Let a job have cost what it did, as it goes."""
        self._backlog.settle(entry, entry.spent)
        entry.spent = entry.charged = entry.charge = 0.0
