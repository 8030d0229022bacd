"""Kernels' calls in one parallel region: see kernels/program.py.

A call is done when all its tasks are, whoever did them. Nobody waits for a thread that has none:
one that the system has put aside for somebody else's work is missed as a pair of hands, not as
somebody to wait for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from llvmlite import ir
from numba import carray, types
from numba.extending import intrinsic

from aril.kernels.native import openmp
from aril.kernels.native.kernel import WORTH_RELEASING, Kernel, record
from aril.kernels.native.scalars import count_up, int64s, pause, seen, untyped
from aril.kernels.program import HERE, Mark, Passage, writing_down

if TYPE_CHECKING:
    import struct

    from aril.kernels.program import Words

# Of one program; it is run when it is full. A layer writes down a dozen calls of 20 words.
_CALLS: Final = 2048
_WORDS: Final = 24 * _CALLS
_WORD_BYTES: Final = 8

_OPERANDS = record("count", "bodies", "records", "counters", "give_way")

# Looks at a counter before a thread gives its core to others; chosen, not measured.
_PATIENCE: Final = 2_000


class NativeProgram:
    """Written by one thread, run by it and the others that torch has."""

    def __init__(self) -> None:
        self._bodies, self._records = (np.zeros(_CALLS, np.int64) for _ in range(2))
        self._counters = np.zeros(2 * _CALLS, np.int64)  # who has begun with a call, who is done
        self._words = np.zeros(_WORDS, np.int64)
        self._memory = memoryview(self._words).cast("B")  # type: ignore[arg-type]  # it is one
        self._address: int = self._words.ctypes.data
        lists = self._bodies, self._records, self._counters
        self._lists = tuple(each.ctypes.data for each in lists)
        self._runs = 0
        self.forget()

    def forget(self) -> None:
        """Begin anew: what a step that failed has left is not run."""
        self._runs += 1
        self._calls = self._used = self._work = 0

    def add(self, body: int, operands: struct.Struct, work: int, values: tuple[float, ...]) -> None:
        """Write a call down; see `Program`."""
        size = operands.size // _WORD_BYTES
        self._make_room(1, size)
        at = self._used * _WORD_BYTES
        operands.pack_into(self._memory, at, *values)
        self._bodies[self._calls] = body
        self._records[self._calls] = self._address + at
        self._calls += 1
        self._used += size
        self._work += work

    def mark(self) -> Mark:
        """Return the place where the next call will be."""
        return Mark(self._runs, self._calls, self._used, self._work)

    def since(self, mark: Mark) -> Passage | None:
        """Return what was written since; None where it has been run meanwhile."""
        if mark.runs != self._runs or mark.calls == self._calls:
            return None
        records = self._records[mark.calls : self._calls] - self._address
        return Passage(
            self._bodies[mark.calls : self._calls].copy(),
            records // _WORD_BYTES - mark.words,
            self._words[mark.words : self._used].copy(),
            self._work - mark.work,
        )

    def append(self, passage: Passage, words: Words) -> None:
        """Write a passage's calls down again, with these words in place of its own."""
        calls, size = len(passage.bodies), len(words)
        self._make_room(calls, size)
        first, used = self._calls, self._used
        self._bodies[first : first + calls] = passage.bodies
        begin = self._address + used * _WORD_BYTES
        self._records[first : first + calls] = passage.records * _WORD_BYTES + begin
        self._words[used : used + size] = words
        self._calls += calls
        self._used += size
        self._work += passage.work

    def run(self) -> None:
        """Run what is written down, and forget it."""
        calls, work = self._calls, self._work
        self.forget()
        if calls:
            self._counters[: 2 * calls] = 0
            if work >= WORTH_RELEASING and HERE.before_long_run is not None:
                HERE.before_long_run()
            threads = torch.get_num_threads()
            with writing_down(None):
                _RUN(torch.float32, threads, work, calls, *self._lists, openmp.give_way)

    def _make_room(self, calls: int, words: int) -> None:
        if self._calls + calls > _CALLS or self._used + words > _WORDS:
            self.run()


@intrinsic
def _call(_typing: Any, address: Any, operand: Any) -> Any:
    """Call the function at an address with an address."""

    def generate(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        word = ir.IntType(64)
        kind = ir.FunctionType(ir.VoidType(), [word])
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), [args[1]])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


def _run(pointer: Any) -> None:
    o = carray(untyped(pointer), (1,), _OPERANDS)[0]
    bodies, records, counters = int64s(o.bodies), int64s(o.records), int64s(o.counters)
    for i in range(o.count):
        call = int64s(records[i])
        if seen(call, 0) < call[1]:  # tasks are left
            count_up(counters, 2 * i)
            _call(bodies[i], records[i])
            count_up(counters, 2 * i + 1)
        looks = 0
        # In this order: who begins between the two looks finds no task.
        while seen(counters, 2 * i + 1) != seen(counters, 2 * i):
            looks += 1
            if looks < _PATIENCE or o.give_way == 0:
                pause()
            else:
                _call(o.give_way, 0)


_RUN = Kernel(_run, _OPERANDS, only=torch.float32)
