"""What both sweeps share: many candidates timed briefly, few of them thoroughly.

A screening times every candidate a few times. Its best, and what is chosen now, are then timed in
turns, often enough to tell a difference from the spread. Rows are kept case by case, as those of
the other tables, so that a run goes on where the last one stopped.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Generic, TypeVar

from benchmarks.gpu.timing import IN_A_GRAPH, times
from benchmarks.gpu.trial import Measurable, measure_each

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from benchmarks.gpu.results import Results
    from benchmarks.gpu.trial import Trial
    from benchmarks.record import Row

Measured = TypeVar("Measured", bound=Measurable)

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
    taken = times(left, trial.device, repetitions=repetitions, failed=trial.drops(left))
    for name, samples in taken.items():
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


class Screening(ABC, Generic[Measured]):
    """The cases of one command, and what was measured of them so far.

    `screened_as` is the last metric that a screening notes of a case.
    """

    question: str
    screened_as: str

    def __init__(self, results: Results, *, repetitions: int) -> None:
        self.results = results
        self.repetitions = repetitions

    @abstractmethod
    def groups(self) -> Iterable[Sequence[Measured]]:
        """List the cases, those together whose screenings decide who comes into their finals."""

    @abstractmethod
    def kernels(self, case: Measured) -> Iterable[object]:
        """Name what is compiled for a case; equal names are compiled once."""

    @abstractmethod
    def most_finalists(self, case: Measured) -> int:
        """Return how many there may be, for the estimate."""

    @abstractmethod
    def screen(self, case: Measured, trial: Trial) -> None:
        """Time every candidate a few times."""

    @abstractmethod
    def final(self, case: Measured, trial: Trial) -> None:
        """Time the best, and what is chosen now."""

    def measure(self, *, deadline: float) -> int:
        """Screen, then time the best, group by group; return how many cases are left.

        No case begins whose compiling would end behind the deadline.
        """
        compiled = Compiled()
        for cases in self.groups():
            for metric, one in ((self.screened_as, self.screen), (IN_A_GRAPH, self.final)):
                missing = [case for case in cases if not self._done(case, metric)]
                for number, case in enumerate(missing):
                    wanted = {*self.kernels(case)}
                    if time.monotonic() > deadline - compiled.seconds(wanted):
                        left = len(missing) - number
                        print(f"time is up: {left} cases of {self.question} left ({metric})")
                        return left
                    compiled.add(wanted)
                    measure_each(
                        self.question, [case], one, self.results, deadline=math.inf, metric=metric
                    )
        return 0

    def seconds(self) -> float:
        """Estimate what is left to do."""
        compiled, total = Compiled(), 0.0
        for case in (case for cases in self.groups() for case in cases):
            kernels = {*self.kernels(case)}
            if not self._done(case, self.screened_as):
                total += compiled.seconds(kernels) + SCREEN_SECONDS * len(kernels)
                compiled.add(kernels)
            if not self._done(case, IN_A_GRAPH):
                total += FINAL_SECONDS * self.most_finalists(case)
        return total

    def run(self, *, deadline: float, minutes: float) -> int:
        """Say what is left, and how many commands of that length it may take; then measure."""
        seconds = self.seconds()
        commands = max(1, -(-seconds // (60 * minutes)))
        print(
            f"{self.question}: about {seconds:.0f} s are left, by estimate; {commands:.0f} "
            f"commands of {minutes:g} minutes"
        )
        return self.measure(deadline=deadline)

    def show(self, case: Measured, current: Mapping[str, str]) -> None:
        """Print a final's fastest, and what is chosen now: names by what they are chosen for."""
        timed = rows_of(self.results, self.question, case, IN_A_GRAPH)
        for name in sorted(timed, key=lambda name: timed[name].p50)[:3]:
            print(f"  {timed[name].p50:8.2f} us with {name}")
        for of, name in current.items():
            if name in timed:
                print(f"  {timed[name].p50:8.2f} us with what is there: {of}")

    def _done(self, case: Measured, metric: str) -> bool:
        return self.results.done(self.question, case.config, case.rows, metric)
