"""A paced worker that has loaded what a real one has: torch, transformers, and all their objects.

As `python -m benchmarks.laden_worker SECONDS FILE`; beside that it is `tests.support.paced_worker`.
How long Python's collector takes each time is appended to the file, in seconds, where that is more
than a millisecond.
"""

from __future__ import annotations

import functools
import gc
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch  # noqa: F401 - to be there
import transformers

from aril.worker.app import run_worker
from aril.worker.settings import load_settings
from benchmarks.instant import load_instant

if TYPE_CHECKING:
    from collections.abc import Callable

WORTH_SECONDS: Final = 0.001


def telling(file: Path) -> Callable[[str, object], None]:
    """Return what is to be called as the collector begins and ends."""
    begun = 0.0

    def tell(phase: str, _: object) -> None:
        nonlocal begun
        if phase == "start":
            begun = time.perf_counter()
        elif (took := time.perf_counter() - begun) > WORTH_SECONDS:
            with file.open("a") as told:
                told.write(f"{took:.6f}\n")

    return tell


if __name__ == "__main__":
    _ = transformers.AutoTokenizer  # each name of it is loaded when it is first used
    pace = float(sys.argv[1])
    gc.callbacks.append(telling(Path(sys.argv[2])))
    sys.exit(run_worker(load_settings().settings, load=functools.partial(load_instant, pace=pace)))
