"""Ways that take turns, so that a machine which changes its speed changes all of them alike."""

from __future__ import annotations

import os
import random
import sys
import time
from typing import TYPE_CHECKING, TypeVar

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    Way = TypeVar("Way", bound=Hashable)
    Taken = TypeVar("Taken")

NUMPY_THREADS = "OPENBLAS_NUM_THREADS"


def use_one_thread(module: str) -> None:
    """Hold torch to one thread; start the module anew where numpy had no chance to hear of it.

    On a busy machine threads wait for each other.
    """
    torch.set_num_threads(1)
    if os.environ.get(NUMPY_THREADS) != "1":
        command = [sys.executable, "-m", module, *sys.argv[1:]]
        os.execve(sys.executable, command, os.environ | {NUMPY_THREADS: "1"})  # noqa: S606


def in_turns(ways: Mapping[Way, Callable[[], Taken]], repetitions: int) -> dict[Way, list[Taken]]:
    """Call each way once to warm up, then all of them again and again; return what each returned.

    The order is drawn anew for each repetition: on a CPU who runs after whom is worth some
    percent, by what is left in its caches.
    """
    taken: dict[Way, list[Taken]] = {name: [] for name in ways}
    order = list(ways)
    for repetition in range(repetitions + 1):
        random.Random(repetition).shuffle(order)
        for name in order:
            found = ways[name]()
            if repetition:
                taken[name].append(found)
    return taken


def milliseconds(work: Callable[[], object]) -> float:
    """Time one call."""
    begun = time.perf_counter()
    work()
    return 1e3 * (time.perf_counter() - begun)
