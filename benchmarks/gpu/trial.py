"""One case at a time: what is there isn't measured again, and who fails doesn't stop the others."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import torch

from benchmarks.gpu.failures import EVERYONE, DeviceLost, place, survive
from benchmarks.gpu.timing import IN_A_GRAPH

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from aril.kernels.sgmv.cost import Roofs
    from benchmarks.gpu.providers import Provider
    from benchmarks.gpu.results import Results
    from benchmarks.gpu.timing import Failed


BANDWIDTH = "bandwidth"
SHARE = "share of the measured memory roof"


class Measurable(Protocol):
    """What is measured at a time: `config` and `rows` tell it from all others of its question."""

    @property
    def config(self) -> str:
        """What the CSV says of it."""

    @property
    def rows(self) -> int:
        """Rows of the batch."""


Measured = TypeVar("Measured", bound=Measurable)


class Trial:
    """The figures of one case, and of who failed in it."""

    def __init__(self, results: Results, question: str, case: Measurable) -> None:
        self.results = results
        self.device = results.device
        self.question = question
        self.config = case.config
        self.rows = case.rows
        self._lost = results.lost(question, case.config, case.rows)

    def note(self, provider: str, metric: str, samples: Sequence[float], unit: str) -> None:
        """Keep one figure."""
        self.results.add(
            self.question, provider, metric, self.rows, samples, unit=unit, config=self.config
        )

    def leaves_out(self, provider: str, reason: str | None) -> bool:
        """Say so where there is a reason, or where an earlier run lost the device with it."""
        if reason is None and provider in self._lost:
            reason = "the device stopped working with it before"
        if reason is not None:
            print(f"  {provider:24} left out: {reason}")
        return reason is not None

    def failed(self, provider: str, error: Exception) -> None:
        """Note that it failed, and free its memory. Raises `DeviceLost`."""
        where = place(error)
        said = survive(provider, error, self.device)
        print(f"  {provider:24} FAILED: {said} ({where})")
        self.note(provider, f"failed: {said}", [1], "1")

    def drops(self, *tables: dict[str, Any]) -> Failed:
        """Note who fails while it is timed, and take it out of these, so that its memory can go."""

        def failed(name: str, error: Exception) -> None:
            for table in tables:
                table.pop(name, None)
            self.failed(name, error)

        return failed

    @contextmanager
    def guard(self, provider: str) -> Iterator[None]:
        """Note what is raised within, and go on behind it."""
        try:
            yield
        except DeviceLost:
            raise
        except Exception as error:  # noqa: BLE001 - one that fails must not end the run
            self.failed(provider, error)


class Report:
    """Keeps and prints the times of one case, whose call moves so many bytes.

    What follows from a time in a graph is kept where it is one of `kept`.
    """

    def __init__(
        self, trial: Trial, roofs: Roofs, moved: int, *, kept: Collection[str] = ()
    ) -> None:
        self._trial = trial
        self._roofs = roofs
        self._moved = moved
        self._kept = kept

    def add(self, metric: str, times: Mapping[str, Sequence[float]]) -> None:
        """Keep times in microseconds by provider, and for those in a graph the bandwidth."""
        for name, samples in times.items():
            self._trial.note(name, metric, samples, "us")
            middle = sorted(samples)[len(samples) // 2]
            line = f"  {name:24} {metric:18} {middle:10.2f} us"
            if metric == IN_A_GRAPH:
                rates = [self._moved / each / 1e3 for each in samples]
                shares = [100 * rate * 1e9 / self._roofs.memory for rate in rates]
                for follows, found, unit in ((BANDWIDTH, rates, "GB/s"), (SHARE, shares, "%")):
                    if follows in self._kept:
                        self._trial.note(name, follows, found, unit)
                line += f" {self._moved / middle / 1e3:8.0f} GB/s"
                line += (
                    f" {100 * self._moved / middle * 1e6 / self._roofs.memory:5.1f} % of the roof"
                )
            print(line)


def measure_each(
    question: str,
    cases: Sequence[Measured],
    measure: Callable[[Measured, Trial], None],
    results: Results,
    *,
    deadline: float,
    metric: str | None = None,
    providers: Sequence[Provider] = (),
) -> int:
    """Measure the cases that the results don't have yet; return how many are left at the deadline.

    A case without a figure is one without `metric`, where that is given. Results are written after
    each, and providers forget it. Raises `DeviceLost`, with what there is written and the culprit
    noted, so that the next run leaves it out.
    """
    missing = [case for case in cases if not results.done(question, case.config, case.rows, metric)]
    begin = time.monotonic()
    for number, case in enumerate(missing):
        if time.monotonic() > deadline:
            left = len(missing) - number
            pace = f", at {(time.monotonic() - begin) / number:.1f} s each so far" if number else ""
            print(f"time is up: {left} cases of {question} left for --resume{pace}")
            return left
        results.begin(question, case.config, case.rows)
        trial = Trial(results, question, case)
        try:
            with trial.guard(EVERYONE):
                try:
                    measure(case, trial)
                finally:
                    for provider in providers:
                        provider.forget()
        except DeviceLost as lost:
            results.lose(question, case.config, case.rows, lost)
            raise
        results.write()
        if results.device.type == "cuda":
            torch.cuda.empty_cache()
    return 0
