"""Compiled constraints in bounded memory: each is compiled once, in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, Protocol
from weakref import WeakValueDictionary

from aril.schemas import ErrorCode, JobError
from aril.worker.constraints.bounds import STACK_BYTES

if TYPE_CHECKING:
    from aril.schemas.constraint import Constraint
    from aril.worker.constraints.compiler import CompiledConstraint
    from aril.worker.observe.metrics import Metrics

MAX_ENTRIES: Final = 64
"""Each may come to as many states of its lexer as its bound allows, whatever its text."""
MAX_TEXT_BYTES: Final = 1 << 20
"""Of all constraints together: one takes many times its text in memory."""


class Compiler(Protocol):
    """What makes a constraint of its text."""

    def digest(self, constraint: Constraint) -> bytes:
        """Return its identity."""

    def compile(self, constraint: Constraint) -> CompiledConstraint:
        """Compile it, in the cache's thread. Raises JobError."""

    def close(self) -> None:
        """Let go what it holds; from any thread."""


class ConstraintCache:
    """The most recently used ones, refusals included; asked on the event loop.

    One thread, since the cores are the engine's. A tenant has one constraint in it at a time, so
    that others wait for one of its, however many it sends and however long they take.
    """

    def __init__(self, compiler: Compiler, metrics: Metrics) -> None:
        self._compiler = compiler
        self._metrics = metrics
        self._kept: OrderedDict[bytes, tuple[CompiledConstraint | JobError, int]] = OrderedDict()
        self._bytes = 0
        self._coming: dict[bytes, asyncio.Task[CompiledConstraint | JobError]] = {}
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._thread = _deep_thread()

    async def get(self, tenant: str, constraint: Constraint) -> CompiledConstraint:
        """Return it compiled, whoever asked first. Raises JobError for what cannot be kept to."""
        digest = self._compiler.digest(constraint)
        kept = self._fresh(digest)
        if kept is not None:
            self._kept.move_to_end(digest)
            self._metrics.constraints.labels("cached").inc()
            found = kept[0]
        else:
            if (coming := self._coming.get(digest)) is None:
                coming = asyncio.create_task(self._compile(tenant, digest, constraint))
                self._coming[digest] = coming
            found = await asyncio.shield(coming)
        if isinstance(found, JobError):  # a new one: each raise adds to a traceback
            raise JobError(found.code, found.message, limit=found.limit, given=found.given)
        return found

    def close(self) -> None:
        """Compile nothing more."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._compiler.close()

    async def _compile(
        self, tenant: str, digest: bytes, constraint: Constraint
    ) -> CompiledConstraint | JobError:
        loop = asyncio.get_running_loop()
        begun = time.perf_counter()
        found: CompiledConstraint | JobError
        turn = self._turns.setdefault(tenant, asyncio.Lock())
        try:
            async with turn:
                found = await loop.run_in_executor(self._thread, self._compiler.compile, constraint)
        except JobError as error:
            found = error.bare()
        finally:
            del self._coming[digest]
        refused = isinstance(found, JobError)
        self._metrics.constraints.labels("refused" if refused else "compiled").inc()
        self._metrics.constraint_compile_seconds.observe(time.perf_counter() - begun)
        if not (isinstance(found, JobError) and found.code is ErrorCode.INTERNAL):
            self._keep(digest, found, len(constraint.text.encode(errors="replace")))
        return found

    def _fresh(self, digest: bytes) -> tuple[CompiledConstraint | JobError, int] | None:
        """Return what is kept of it; what its answers have worn out goes, and is compiled anew."""
        kept = self._kept.get(digest)
        if kept is None or isinstance(kept[0], JobError) or not kept[0].worn:
            return kept
        del self._kept[digest]
        self._bytes -= kept[1]
        return None

    def _keep(self, digest: bytes, found: CompiledConstraint | JobError, size: int) -> None:
        if size > MAX_TEXT_BYTES:  # it would push out all others, and itself
            return
        self._kept[digest] = found, size
        self._bytes += size
        while len(self._kept) > MAX_ENTRIES or self._bytes > MAX_TEXT_BYTES:
            _, (_, gone) = self._kept.popitem(last=False)
            self._bytes -= gone


def _deep_thread() -> ThreadPoolExecutor:
    """Start one with a stack for rules that nest, as deep as where they were tried."""
    executor = ThreadPoolExecutor(1, thread_name_prefix="constraints")
    before = threading.stack_size(STACK_BYTES)
    try:
        executor.submit(int).result()  # starts it
    finally:
        threading.stack_size(before)
    return executor
