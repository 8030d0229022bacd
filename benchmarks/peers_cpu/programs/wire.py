"""What a peer's program says to who measures it; nothing here needs a package.

First a line that names the version, then for each line of requests one of answers.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

# Taken before any library prints: what they print goes to stderr.
_OUT = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)

Request = dict[str, Any]  # prompt, adapter, new: as workload.Asked


class Answers:
    """Tokens of each request and when they came, counted from the construction."""

    def __init__(self, requests: list[Request]) -> None:
        self.ids: list[list[int]] = [[] for _ in requests]
        self.times: list[list[float]] = [[] for _ in requests]
        self._begun = time.perf_counter()
        self.seconds = 0.0

    def now(self) -> float:
        """Return the seconds since the beginning."""
        return time.perf_counter() - self._begun

    def add(self, row: int, ids: list[int], at: float | None = None) -> None:
        """Note tokens of a request that have come now, or `at`."""
        self.seconds = self.now()
        self.ids[row] += ids
        self.times[row] += [self.seconds if at is None else at] * len(ids)


def serve(version: str, answer: Callable[[list[Request]], Answers]) -> None:
    """Answer line by line until there are no more."""
    print(json.dumps({"version": version}), file=_OUT)
    for line in sys.stdin:
        found = answer(json.loads(line))
        print(
            json.dumps({"ids": found.ids, "times": found.times, "seconds": found.seconds}),
            file=_OUT,
        )
