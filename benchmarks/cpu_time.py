"""The CPU time of one thing that is done quickly, however busy the machine is."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

BUDGET_SECONDS: Final = 0.02  # of one thing in one round
MICROSECONDS: Final = 1e6  # in a second


def microseconds(work: Callable[[], object]) -> float:
    """Return the CPU time of one call, from as many as the budget holds."""
    begin = time.thread_time()
    work()
    once = max(time.thread_time() - begin, 1e-7)
    calls = max(1, int(BUDGET_SECONDS / once))
    begin = time.thread_time()
    for _ in range(calls):
        work()
    return (time.thread_time() - begin) / calls * MICROSECONDS
