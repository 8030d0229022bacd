"""Kernels in machine code: Numba makes it from Python, torch's own threads run it.

A kernel is a function of one pointer, to a record of its operands: addresses and numbers. Its work
is cut into tasks; each thread takes the next one's number from a counter in the record until none
is left. What a task computes does not depend on who takes it.

A step calls some hundreds of these, so a call must cost little: the record is packed by `struct`
and the function called through ctypes, which together take two microseconds (decision 068); or it
is written down, to be run with others (kernels/program.py).
"""

from __future__ import annotations

import ctypes
import struct
import threading
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import torch

from aril.kernels.native import openmp
from aril.kernels.native.machine_code import compile_body
from aril.kernels.program import HERE

if TYPE_CHECKING:
    from collections.abc import Callable

# Numbers that are read or written: with fewer, one thread is done before another has woken up.
WORTH_WAKING: Final = 300_000

# From a millisecond on, other threads of the process may run Python meanwhile. Below, giving the
# GIL away may cost five, if another one keeps it.
WORTH_RELEASING: Final = 20_000_000

_KEEPING_GIL = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)
_RELEASING_GIL = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def record(*names: str, real: tuple[str, ...] = ()) -> np.dtype[Any]:
    """Describe a kernel's operands: int64s by name, those in `real` float64s.

    They stand behind the counter of tasks, their number, and a counter of threads.
    """
    kinds = [(name, "f8" if name in real else "i8") for name in names]
    return np.dtype([("next", "i8"), ("tasks", "i8"), ("threads", "i8"), *kinds])


class _Code(NamedTuple):
    keeping_gil: Callable[[Any], None]
    releasing_gil: Callable[[Any], None]
    address: int


class Kernel:
    """One body, compiled for each type of elements when it is first called with it.

    `only` is the type of all its elements, where that is not a model's; `needs` says of a type
    whether this processor can run it.
    """

    def __init__(
        self,
        body: Callable[[Any], None],
        operands: np.dtype[Any],
        *,
        only: torch.dtype | None = None,
        needs: Callable[[torch.dtype], bool] | None = None,
    ) -> None:
        self.only = only
        self._needs = needs
        self._body = body
        kinds = (operands[name].kind for name in operands.names or ())
        self._operands = struct.Struct("".join("d" if kind == "f" else "q" for kind in kinds))
        self._compiled: dict[torch.dtype, _Code] = {}
        self._here = threading.local()

    def prepare(self, dtype: torch.dtype) -> None:
        """Compile it for a model's type, if it is not yet and can be."""
        kind = self.only or dtype
        if kind not in self._compiled and (self._needs is None or self._needs(kind)):
            self._compile(kind)

    def __call__(self, dtype: torch.dtype, tasks: int, work: int, *operands: float) -> None:
        """Run all tasks; `work` is about how many numbers they read and write together."""
        alone, alone_released, address = self._compiled.get(dtype) or self._compile(dtype)
        program = HERE.program
        if program is not None:
            program.add(address, self._operands, work, (0, tasks, 0, *operands))
            return
        try:
            memory = self._here.memory
        except AttributeError:
            memory = self._here.memory = ctypes.create_string_buffer(self._operands.size)
        self._operands.pack_into(memory, 0, 0, tasks, 0, *operands)
        releases = work >= WORTH_RELEASING
        threads = min(torch.get_num_threads(), tasks)
        if work < WORTH_WAKING or threads == 1 or openmp.keeping_gil is None:
            (alone_released if releases else alone)(memory)
        else:
            run = openmp.releasing_gil if releases else openmp.keeping_gil
            run(address, memory, threads, 0)

    def _compile(self, dtype: torch.dtype) -> _Code:
        address: int = compile_body(self._body, dtype).address
        code = _Code(_KEEPING_GIL(address), _RELEASING_GIL(address), address)
        self._compiled[dtype] = code
        return code
