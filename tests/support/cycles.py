"""What a piece of work leaves that only the garbage collector would find."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

from aril.schemas import Job, JobError
from aril.worker.job import Entry, Record

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def left_to_the_collector() -> Iterator[list[object]]:
    """Yield a list that holds, once this has been left, what only the collector can free."""
    left: list[object] = []
    gc.collect()
    before = gc.isenabled()
    gc.disable()
    try:
        yield left
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        left += gc.garbage
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        if before:
            gc.enable()


def ours(left: list[object]) -> list[object]:
    """Return what of it is a job's, or holds one."""
    return [
        each
        for each in left
        if isinstance(each, Entry | Record | Job | JobError)
        or (isinstance(each, FrameType) and "/aril/" in each.f_code.co_filename)
    ]
