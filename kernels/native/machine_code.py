"""Machine code that Numba makes of a function, and where it is kept from one start to the next."""

from __future__ import annotations

import hashlib
import os
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

import numba
import torch
from numba import types
from numba.core.caching import FunctionCache
from numba.core.registry import cpu_target

from aril.kernels.native.scalars import BFLOATS, FLOATS, HALVES, OPTIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_POINTERS = {torch.float32: FLOATS, torch.bfloat16: BFLOATS, torch.float16: HALVES}


def compile_body(body: Callable[[Any], None], dtype: torch.dtype) -> Any:
    """Compile a function of one pointer, to elements of that type: Numba's `CFunc`.

    Machine code is kept in the user's cache (`NUMBA_CACHE_DIR` names another place), and made anew
    where there is none to write to, or where what was kept is damaged: a second for the largest
    kernel.
    """
    signature = types.void(_POINTERS[dtype])
    with _kept_by_type(dtype):
        try:
            return numba.cfunc(signature, cache=_kept, **OPTIONS)(body)
        except Exception:  # noqa: BLE001 - no room left, or what reading a damaged file raises
            with suppress(Exception):
                FunctionCache(body).flush()  # the next start finds nothing, and keeps it
            return numba.cfunc(signature, **OPTIONS)(body)


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


_kept = _keep_code()
_compiling = threading.Lock()
