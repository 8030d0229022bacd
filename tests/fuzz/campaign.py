"""A long run: cases are split over targets and processes, and what came of them is kept.

A stretch is the unit: one target's cases of some numbers. When one is done its tally is added up
and written down, so that a run that was stopped goes on behind what it had done.
"""

from __future__ import annotations

import faulthandler
import gc
import json
import mmap
import os
import struct
import time
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any, Final

from tests.fuzz.registry import TARGETS
from tests.fuzz.runner import run_stretch
from tests.fuzz.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future
    from pathlib import Path

STRETCH: Final = 20_000
HANG_SECONDS: Final = 600.0  # of a stretch, which takes some seconds: then the process is ended
_WHOLE: Final = 10_000  # what the targets' shares are parts of
_PLACE: Final = struct.Struct("<q16s")  # the case in hand, and its target


@dataclass(slots=True)
class Kept:
    """A run as it stands: tallies by target, and the stretches that are done, by their start."""

    seed: int
    cases: int
    tallies: dict[str, Tally] = field(default_factory=dict)
    done: dict[str, list[int]] = field(default_factory=dict)
    seconds: float = 0.0

    @classmethod
    def load(cls, path: Path, seed: int, cases: int) -> Kept:
        """Go on with the run in a file, or begin; ValueError if it is another run's."""
        if not path.exists():
            return cls(seed, cases)
        fields = json.loads(path.read_text())
        if (fields["seed"], fields["cases"]) != (seed, cases):
            raise ValueError(
                f"{path} is of seed {fields['seed']}, {fields['cases']} cases: remove it to begin"
            )
        tallies = {name: Tally.of_fields(each) for name, each in fields["tallies"].items()}
        return cls(seed, cases, tallies, fields["done"], fields["seconds"])

    def save(self, path: Path) -> None:
        """Write it down, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(".new")
        tallies = {name: tally.as_fields() for name, tally in self.tallies.items()}
        fields: dict[str, Any] = {"seed": self.seed, "cases": self.cases, "seconds": self.seconds}
        new.write_text(json.dumps(fields | {"tallies": tallies, "done": self.done}))
        new.replace(path)

    def take(self, name: str, start: int, tally: Tally) -> None:
        """Add a stretch."""
        self.tallies.setdefault(name, Tally()).add(tally)
        self.done.setdefault(name, []).append(start)

    @property
    def count(self) -> int:
        """How many cases were run."""
        return sum(tally.cases for tally in self.tallies.values())

    @property
    def failed(self) -> int:
        """How many went as none may."""
        return sum(tally.failed for tally in self.tallies.values())


class ProcessDiedError(RuntimeError):
    """A process ended in the middle of a case, which the message names."""


def split(cases: int, names: list[str] | None = None) -> dict[str, int]:
    """Return how many cases each target gets: its share, at least one; together `cases`."""
    targets = [TARGETS[name] for name in names or TARGETS]
    whole = sum(target.share for target in targets)
    counts = {target.name: max(1, cases * target.share // whole) for target in targets}
    counts[targets[0].name] += max(0, cases - sum(counts.values()))
    return counts


def stretches(counts: dict[str, int], kept: Kept) -> Iterator[tuple[str, range]]:
    """Yield what is left to do, the targets in turns."""
    left = {
        name: [
            range(start, min(start + STRETCH, number))
            for start in range(0, number, STRETCH)
            if start not in set(kept.done.get(name, ()))
        ]
        for name, number in counts.items()
    }
    while any(left.values()):
        for name, ranges in left.items():
            if ranges:
                yield name, ranges.pop(0)


def run(
    kept: Kept,
    counts: dict[str, int],
    *,
    processes: int,
    path: Path,
    tell: Callable[[Kept], None],
) -> None:
    """Run what is left, and keep it in `path` stretch by stretch. Raises ProcessDiedError."""
    todo = stretches(counts, kept)
    places = path.parent / "places"
    places.mkdir(parents=True, exist_ok=True)
    for old in places.iterdir():
        old.unlink()
    begun, before = time.monotonic(), kept.seconds
    with ProcessPoolExecutor(processes, get_context("spawn"), _begin, (str(places),)) as pool:
        running: dict[Future[Tally], tuple[str, range]] = {}
        while True:
            while len(running) < processes + 1 and (stretch := next(todo, None)) is not None:
                running[pool.submit(_stretch, kept.seed, *stretch)] = stretch
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                name, numbers = running.pop(future)
                try:
                    kept.take(name, numbers.start, future.result())
                except BrokenProcessPool:
                    raise ProcessDiedError(
                        f"in the middle of one of: {', '.join(_places(places))}"
                    ) from None
            kept.seconds = before + time.monotonic() - begun
            kept.save(path)
            tell(kept)


_place: mmap.mmap | None = None


def _begin(places: str) -> None:
    """Prepare a process: one thread, and a place to say which case is in hand."""
    import torch  # noqa: PLC0415 - not in the process that only counts

    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()  # what was imported is not looked at again in the middle of a case
    path = os.path.join(places, str(os.getpid()))  # noqa: PTH118 - a plain string came
    with open(path, "w+b") as file:  # noqa: PTH123 - same
        file.truncate(_PLACE.size)
        global _place  # noqa: PLW0603 - one place a process
        _place = mmap.mmap(file.fileno(), _PLACE.size)


def _stretch(seed: int, name: str, numbers: range) -> Tally:
    place, text = _place, name.encode()
    assert place is not None
    faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
    try:
        return run_stretch(
            TARGETS[name],
            seed,
            numbers,
            begun=lambda number: _PLACE.pack_into(place, 0, number, text),
        )
    finally:
        faulthandler.cancel_dump_traceback_later()


def _places(places: Path) -> Iterator[str]:
    for each in places.iterdir():
        number, name = _PLACE.unpack(each.read_bytes())
        yield f"{name.rstrip(bytes(1)).decode()} {number}"
