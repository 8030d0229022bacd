"""When a service looks for cycles that nobody holds: seldom, and never among what stays.

Python's collector holds the GIL for as long as it looks: no row of a batch gets a token meanwhile.
By its defaults it looks through all that is there whenever that has grown by a quarter: with torch
loaded and some thousand jobs waiting a tenth of a second and more each time (measured:
docs/decisions/100), to find next to nothing. What a job leaves behind is freed by its references.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

YOUNG_OBJECTS: Final = 20_000
"""So many more than before, and the young ones are looked through: some milliseconds."""
YOUNG_LOOKS: Final = 10
"""For each look through those that outlived one."""
NEVER: Final = 1_000_000
"""Looks through everything are ours to take, by the clock."""
IDLE_SECONDS: Final = 60.0
BUSY_SECONDS: Final = 3_600.0


@contextlib.contextmanager
def what_stays() -> Iterator[None]:
    """Take all that is there now for what stays: it is not looked through inside."""
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, YOUNG_LOOKS, NEVER)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


async def look_seldom(idle: Callable[[], bool]) -> None:
    """Look through all that has come since, until cancelled.

    Each minute where nobody would notice, each hour in any case.
    """
    waited = 0.0
    while True:
        await asyncio.sleep(IDLE_SECONDS)
        waited += IDLE_SECONDS
        if idle() or waited >= BUSY_SECONDS:
            gc.collect()
            waited = 0.0
