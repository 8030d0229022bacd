"""A paced worker that remembers as many finished jobs as it may, from its first assignment on.

As `python -m benchmarks.full_worker SECONDS`; beside that it is `tests.support.paced_worker`. Its
identities are made up: to finish so many jobs takes a busy machine half an hour.
"""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING

from aril.worker.app import run_worker
from aril.worker.job import Asked
from aril.worker.queue import consumer
from aril.worker.queue.identities import OF_ALL, IdentityBound
from aril.worker.settings import load_settings
from benchmarks.instant import load_instant

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aril.worker.queue.identities import FinishedJobs

MADE_UP = OF_ALL + OF_ALL // 5  # some are forgotten again


class FullBound(IdentityBound):
    """The bound, reached."""

    def hold(self, held: Iterable[FinishedJobs]) -> None:
        """Hold these, and have them finish jobs in turn."""
        partitions = tuple(held)
        super().hold(partitions)
        for number in range(MADE_UP if partitions else 0):
            asked = Asked(number.to_bytes(16), number, None)
            partitions[number % len(partitions)].add("acme", f"made-up-{number}", asked)


if __name__ == "__main__":
    consumer.IdentityBound = FullBound  # type: ignore[attr-defined] # in place of the worker's
    pace = float(sys.argv[1])
    sys.exit(run_worker(load_settings().settings, load=functools.partial(load_instant, pace=pace)))
