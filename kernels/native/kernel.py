"""Kernels in machine code: Numba makes it from Python, torch's own threads run it.

A kernel is a function of one pointer, to a record of its operands: addresses and numbers. Its work
is cut into tasks; each thread takes the next one's number from a counter in the record until none
is left. What a task computes does not depend on who takes it.

A step calls some hundreds of these, so a call must cost little: the record is packed by `struct`
and the function called through ctypes, which together take two microseconds (decision 068).
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import struct
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any, Final

import numba
import numpy as np
import torch
from numba import types
from numba.core.caching import FunctionCache
from numba.core.registry import cpu_target

from kernels.native.scalars import BFLOATS, FLOATS, HALVES, OPTIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ELEMENTS: Final = {torch.float32: FLOATS, torch.bfloat16: BFLOATS, torch.float16: HALVES}

# Numbers that are read or written: with fewer, one thread is done before another has woken up.
WORTH_WAKING: Final = 300_000

# From a millisecond on, other threads of the process may run Python meanwhile. Below, giving the
# GIL away may cost five, if another one keeps it.
WORTH_RELEASING: Final = 20_000_000

_BODY = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)  # keeps the GIL


def record(*names: str, real: tuple[str, ...] = ()) -> np.dtype[Any]:
    """Describe a kernel's operands: int64s by name, those in `real` float64s.

    They stand behind the counter of tasks, their number, and a counter of threads.
    """
    kinds = [(name, "f8" if name in real else "i8") for name in names]
    return np.dtype([("next", "i8"), ("tasks", "i8"), ("threads", "i8"), *kinds])


class Kernel:
    """One body, compiled for each type of elements when it is first called with it.

    Machine code is kept in the user's cache (`NUMBA_CACHE_DIR` names another place), and made anew
    where there is none to write to, or where what was kept is damaged: a second for the largest
    kernel. `only` is the type of all its elements, where that is not a model's.
    """

    def __init__(
        self,
        body: Callable[[Any], None],
        operands: np.dtype[Any],
        *,
        only: torch.dtype | None = None,
    ) -> None:
        self.only = only
        self._body = body
        kinds = (operands[name].kind for name in operands.names or ())
        self._operands = struct.Struct("".join("d" if kind == "f" else "q" for kind in kinds))
        self._compiled: dict[torch.dtype, tuple[Callable[[Any], None], int]] = {}
        self._here = threading.local()

    def prepare(self, dtype: torch.dtype) -> None:
        """Compile it for a model's type, if it is not yet."""
        kind = self.only or dtype
        if kind not in self._compiled:
            self._compile(kind)

    def __call__(self, dtype: torch.dtype, tasks: int, work: int, *operands: float) -> None:
        """Run all tasks; `work` is about how many numbers they read and write together."""
        alone, address = self._compiled.get(dtype) or self._compile(dtype)
        try:
            memory = self._here.memory
        except AttributeError:
            memory = self._here.memory = ctypes.create_string_buffer(self._operands.size)
        self._operands.pack_into(memory, 0, 0, tasks, 0, *operands)
        if work < WORTH_WAKING or tasks == 1 or _parallel is None:
            alone(memory)
        else:
            run = _parallel if work < WORTH_RELEASING else _parallel_released
            run(address, memory, min(torch.get_num_threads(), tasks), 0)

    def _compile(self, dtype: torch.dtype) -> tuple[Callable[[Any], None], int]:
        signature = types.void(ELEMENTS[dtype])
        with _kept_by_type(dtype):
            try:
                made = numba.cfunc(signature, cache=_kept, **OPTIONS)(self._body)
            except Exception:  # noqa: BLE001 - no room left, or what reading a damaged file raises
                with suppress(Exception):
                    FunctionCache(self._body).flush()  # the next start finds nothing, and keeps it
                made = numba.cfunc(signature, **OPTIONS)(self._body)
        self._compiled[dtype] = found = (_BODY(made.address), made.address)
        return found


def _keep_code() -> bool:
    """Choose where machine code is kept; False where nothing can be written.

    A folder for these very sources: Numba looks at a kernel's own file only, and left to itself it
    would go on to the package's folder, where an older version's code could be found. For this
    Numba and processor too: see `_kept_by_type`.
    """
    machine = cpu_target.target_context.codegen().magic_tuple()
    digest = hashlib.sha256(repr((numba.__version__, machine)).encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    if numba.config.CACHE_DIR:
        place = Path(numba.config.CACHE_DIR).absolute()
    else:
        caches = Path(os.environ.get("XDG_CACHE_HOME", ""))
        if not caches.is_absolute():  # then it counts for nothing, its specification says
            caches = Path(os.path.expanduser("~/.cache"))  # noqa: PTH111 - `expanduser` of Path raises where there is no home
        place = caches / "aril"
    folder = place / f"kernels-{digest.hexdigest()[:16]}"
    numba.config.CACHE_DIR = str(folder)
    if not folder.is_absolute():  # nobody's home
        return False
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


@contextmanager
def _kept_by_type(dtype: torch.dtype) -> Iterator[None]:
    """Have Numba keep a type's code in a folder of its own.

    Where an index has several entries, two processes that add one each at the same time may leave
    it with the one's entry and the other's code, which nothing checks.
    """
    with _compiling:
        folder = numba.config.CACHE_DIR
        numba.config.CACHE_DIR = str(Path(folder) / str(dtype).removeprefix("torch."))
        try:
            yield
        finally:
            numba.config.CACHE_DIR = folder


def _find_parallel(kind: Callable[[str], Any]) -> Any:
    """Find how the OpenMP runtime that torch has loaded runs a function in each of its threads.

    A second pool beside them would fight for the same cores. None on a system whose torch has
    another runtime: tasks are then the caller's alone.
    """
    packages = Path(torch.__file__).parent
    found = [*packages.glob("lib/libgomp*.so*"), *packages.parent.glob("torch.libs/libgomp*.so*")]
    if not found:
        return None
    parallel = kind(str(found[0])).GOMP_parallel
    parallel.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    parallel.restype = None
    return parallel


_kept = _keep_code()
_compiling = threading.Lock()
_parallel = _find_parallel(ctypes.PyDLL)
_parallel_released = _find_parallel(ctypes.CDLL)
