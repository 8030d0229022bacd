"""Kernels in machine code: Numba makes it from Python, torch's own threads run it.

A kernel is a function of one pointer, to a record of its operands: addresses and numbers. Its work
is cut into tasks; each thread takes the next one's number from a counter in the record until none
is left. What a task computes does not depend on who takes it.

A step calls some hundreds of these, so a call must cost little: the record is packed by `struct`
and the function called through ctypes, which together take two microseconds.
"""

from __future__ import annotations

import ctypes
import struct
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numba
import numpy as np
import torch
from numba import types

from kernels.native.scalars import BFLOATS, FLOATS, HALVES, RELAXED

if TYPE_CHECKING:
    from collections.abc import Callable

ELEMENTS: Final = {torch.float32: FLOATS, torch.bfloat16: BFLOATS, torch.float16: HALVES}

# Work below this many steps of an inner loop is done before a second thread has woken up.
WORTH_WAKING: Final = 60_000

_BODY = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)  # keeps the GIL: most calls take microseconds
_LONG_BODY = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def record(*names: str, real: tuple[str, ...] = ()) -> np.dtype[Any]:
    """Describe a kernel's operands: int64s by name, those in `real` float64s."""
    kinds = [(name, "f8" if name in real else "i8") for name in names]
    return np.dtype([("next", "i8"), ("tasks", "i8"), *kinds])


class Kernel:
    """One body, compiled for each type of elements when it is first called with it."""

    def __init__(self, body: Callable[[Any], None], operands: np.dtype[Any]) -> None:
        self._body = body
        fields = operands.fields or {}
        self._pack = struct.Struct("".join(
            "d" if fields[name][0].kind == "f" else "q" for name in operands.names or ()
        )).pack_into
        self._size = operands.itemsize
        self._compiled: dict[torch.dtype, tuple[Any, Any, int]] = {}
        self._here = threading.local()

    def __call__(self, dtype: torch.dtype, tasks: int, work: int, *operands: float) -> None:
        """Run all tasks; `work` is about how many steps of inner loops they take together."""
        short, long, address = self._compiled.get(dtype) or self._compile(dtype)
        try:
            memory = self._here.memory
        except AttributeError:
            memory = self._here.memory = ctypes.create_string_buffer(self._size)
        self._pack(memory, 0, 0, tasks, *operands)
        if work < WORTH_WAKING or tasks == 1:
            short(memory)
            return
        threads = torch.get_num_threads()
        run = _POOL.run if work < 50 * WORTH_WAKING else _POOL.run_long
        run(address, memory, min(threads, tasks))

    def _compile(self, dtype: torch.dtype) -> tuple[Any, Any, int]:
        signature = types.void(ELEMENTS[dtype])
        options = {"fastmath": RELAXED, "error_model": "numpy"}
        try:
            made = numba.cfunc(signature, cache=True, **options)(self._body)
        except RuntimeError:  # nowhere to keep it
            made = numba.cfunc(signature, **options)(self._body)
        found = (_BODY(made.address), _LONG_BODY(made.address), made.address)
        self._compiled[dtype] = found
        return found


class _Pool:
    """The threads of torch's OpenMP runtime: those that its own operators are run by.

    A second pool beside them would fight for the same cores.
    """

    def __init__(self) -> None:
        path = Path(torch.__file__).parent / "lib" / "libgomp.so.1"
        self.run = self._of(ctypes.PyDLL(str(path)))
        self.run_long = self._of(ctypes.CDLL(str(path)))

    @staticmethod
    def _of(library: Any) -> Any:
        parallel = library.GOMP_parallel
        parallel.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
        parallel.restype = None
        return lambda address, memory, threads: parallel(address, memory, threads, 0)


_POOL = _Pool()
