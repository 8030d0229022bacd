"""Calls of machine code that are written down, and then run one after the other in one go.

A decode step calls some three hundred kernels, most of them done sooner than it takes to call them
from Python and to wake threads up. Written down, they cost one call: threads stay awake from one to
the next, and other threads of the process may run Python meanwhile.

Whoever writes down promises to touch what the calls read and write only after `settle`, in the
same thread, and to let that memory live until then. The same memory may be given to several: they
run in the order in which they were written.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

if TYPE_CHECKING:  # numpy too: its threads are bounded before it is imported (aril.worker.app)
    import struct
    from collections.abc import Callable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    Words: TypeAlias = NDArray[np.int64]


class Mark(NamedTuple):
    """A place in a program."""

    runs: int  # that there were before
    calls: int
    words: int
    work: int


class Passage(NamedTuple):
    """Calls that were written down one after the other."""

    bodies: Words  # a call
    records: Words  # of each, where in `words` it begins
    words: Words  # of all records
    work: int


class Program(Protocol):
    """What calls are written into."""

    def add(self, body: int, operands: struct.Struct, work: int, values: tuple[float, ...]) -> None:
        """Write down a call of the function at an address, with a record of its operands."""

    def run(self) -> None:
        """Run what is written down, and forget it."""

    def mark(self) -> Mark:
        """Return the place where the next call will be."""

    def since(self, mark: Mark) -> Passage | None:
        """Return what was written since; None where it has been run meanwhile."""

    def append(self, passage: Passage, words: Words) -> None:
        """Write a passage's calls down again, with these words in place of its own."""


class _Here(threading.local):
    program: Program | None = None  # what this thread's calls go into; None: they run at once
    # Called before a run that gives the GIL away for a millisecond or more: what wakes other
    # threads of Python is best done then.
    before_long_run: Callable[[], None] | None = None


HERE = _Here()


@contextmanager
def writing_down(program: Program | None) -> Iterator[None]:
    """Have this thread's calls go into a program meanwhile; None: have them run at once."""
    before, HERE.program = HERE.program, program
    try:
        yield
    finally:
        HERE.program = before


def settle() -> None:
    """Run what this thread has written down: what comes next is no call of machine code."""
    if HERE.program is not None:
        HERE.program.run()
