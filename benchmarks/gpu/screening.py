"""What both sweeps share: many candidates timed briefly, few of them thoroughly.

A screening times every candidate a few times. Its best, and what is chosen now, are then timed in
turns, often enough to tell a difference from the spread. Rows are kept case by case, as those of
the other tables, so that a run goes on where the last one stopped.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, TypeVar

from benchmarks.gpu.timing import eager_times, graph_times
from benchmarks.gpu.trial import Measurable, measure_each

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from benchmarks.gpu.results import Results
    from benchmarks.gpu.trial import Trial
    from benchmarks.record import Row

Measured = TypeVar("Measured", bound=Measurable)

IN_A_GRAPH = "time in a graph"
SCREENED = 3  # repetitions, behind two that warm up
# For the estimate alone. Compiling is from an offline compilation for Hopper on two cores; the
# others are guesses: capture, five replays and a check; 22 replays and a closer check.
COMPILE_SECONDS = 0.4
SCREEN_SECONDS = 0.05
FINAL_SECONDS = 0.4


def time_calls(
    calls: Mapping[str, Sequence[Callable[[], None]]],
    trial: Trial,
    metric: str,
    *,
    repetitions: int,
) -> None:
    """Time the candidates in turns and note each; one that fails is noted as that."""
    left = dict(calls)

    def failed(name: str, error: Exception) -> None:
        del left[name]
        trial.failed(name, error)

    if trial.device.type == "cuda":
        times = graph_times(left, repetitions=repetitions, failed=failed)
    else:
        times = eager_times(left, trial.device, repetitions=repetitions, at_once=1, failed=failed)
    for name, samples in times.items():
        trial.note(name, metric, samples, "us")


def passes(trial: Trial, name: str, error: Callable[[], float]) -> bool:
    """Say whether an error, in units of what may be, is at most 1; note who is wrong or fails."""
    if trial.leaves_out(name, None):
        return False
    with trial.guard(name):
        found = error()
        if found <= 1:
            return True
        print(f"  WRONG {name}: {found:.3g} times what rounding may do")
        trial.note(name, "wrong", [found], "1")
    return False


def rows_of(results: Results, question: str, case: Measurable, metric: str) -> dict[str, Row]:
    """Return what this code measured of a case on this device, by candidate."""
    key = (results.mark + case.config, str(case.rows), metric)
    return {
        row.provider: row for row in results.own(question) if (row.config, row.x, row.metric) == key
    }


class Compiled:
    """Which kernels this process will have compiled: what the next case costs before it is timed.

    It knows nothing of Triton's cache on disk, so it may expect too much.
    """

    def __init__(self) -> None:
        self._known: set[object] = set()

    def seconds(self, kernels: Iterable[object]) -> float:
        """Return what those that are new will take."""
        return COMPILE_SECONDS * len({*kernels} - self._known)

    def add(self, kernels: Iterable[object]) -> None:
        """Count these as compiled."""
        self._known.update(kernels)


def measure_in_time(
    question: str,
    cases: Sequence[Measured],
    measure: Callable[[Measured, Trial], None],
    results: Results,
    *,
    metric: str,
    deadline: float,
    kernels: Callable[[Measured], Iterable[object]],
    compiled: Compiled,
) -> int:
    """Do as `measure_each`, but begin no case whose compiling would end behind the deadline."""
    missing = [case for case in cases if not results.done(question, case.config, case.rows, metric)]
    for number, case in enumerate(missing):
        wanted = {*kernels(case)}
        own = deadline - compiled.seconds(wanted)
        if time.monotonic() > own:
            print(f"time is up: {len(missing) - number} cases of {question} left ({metric})")
            return len(missing) - number
        compiled.add(wanted)
        measure_each(question, [case], measure, results, deadline=math.inf, metric=metric)
    return 0


def show_estimate(question: str, seconds: float, *, minutes: float) -> None:
    """Say what is left, and how many commands it may take."""
    commands = max(1, -(-seconds // (60 * minutes)))
    print(
        f"{question}: about {seconds:.0f} s are left, by estimate; {commands:.0f} commands of "
        f"{minutes:g} minutes"
    )
