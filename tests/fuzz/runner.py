"""Runs a stretch of a target's cases in this process and counts what comes of them."""

from __future__ import annotations

import time
import tracemalloc
import warnings
from typing import TYPE_CHECKING, Any, Final

from tests.fuzz.tally import Tally
from tests.fuzz.target import BrokenRuleError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.fuzz.target import Target

MEMORY_EVERY: Final = 509  # cases, of which one is run again to see what it holds
LARGE_BYTES: Final = 4_096  # of these cases one in LARGE_EVERY is
LARGE_EVERY: Final = 7
TRIES: Final = 3  # Python's table of interned strings grows by chance: 4 MB, and not each time
MAX_WHAT_CHARS: Final = 300


def run_stretch(
    target: Target,
    seed: int,
    numbers: range,
    *,
    begun: Callable[[int], None] = lambda _: None,
    memory_every: int = MEMORY_EVERY,
) -> Tally:
    """Run the cases of these numbers; `begun` is told of each before it begins."""
    tally = Tally()
    with target.around(), warnings.catch_warnings():
        warnings.simplefilter("error")  # what warns about a stranger's input talks in our logs
        for number in numbers:
            begun(number)
            _run(target, seed, number, tally, memory_every)
    return tally


def run_one(target: Target, seed: int, number: int) -> str:
    """Run one case and let out whatever it raises."""
    with target.around():
        case = target.case(seed, number)
        verdict = target.check(case)
        _look_at_memory(target, case)
    return verdict


def _run(target: Target, seed: int, number: int, tally: Tally, memory_every: int) -> None:
    case = target.case(seed, number)
    large = target.size(case) >= LARGE_BYTES
    memory = number % (LARGE_EVERY if large else memory_every) == 0
    start = time.thread_time_ns()
    try:
        verdict = target.check(case)
        took = time.thread_time_ns() - start
        if memory:
            tally.held(number, _look_at_memory(target, case))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001 - whatever it is, and a panic is no Exception
        what = f"{type(error).__name__}: {str(error)!a}"
        tally.failure(number, what[:MAX_WHAT_CHARS])
    else:
        tally.took(number, verdict, took)


def _look_at_memory(target: Target, case: Any) -> int:
    """Run a case again; return the most that it held. BrokenRuleError if it may not hold that."""
    limit = target.limit_bytes(case)
    for _ in range(TRIES):
        peak = _peak_bytes(target, case)
        if peak <= limit:
            return peak
    raise BrokenRuleError(f"held {peak} bytes, may hold {limit}")


def _peak_bytes(target: Target, case: Any) -> int:
    tracemalloc.start()
    try:
        target.check(case)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


__all__ = ["MEMORY_EVERY", "BrokenRuleError", "run_one", "run_stretch"]
