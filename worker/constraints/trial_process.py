"""The worker's end of the process that tries constraints: `worker.constraints.trial`."""

from __future__ import annotations

import os
import selectors
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgpack

import worker
from worker.constraints.trial import LENGTH
from worker.observe.logs import get_logger

if TYPE_CHECKING:
    from worker.constraints.vocabulary import Vocabulary

log = get_logger(__name__)

PATIENCE_SECONDS: Final = 60.0
"""For an answer, on a machine however busy: the process bounds its own seconds of the processor."""
TOO_MUCH: Final = "it takes too much time, memory or depth to compile"


class TrialFailedError(Exception):
    """The process cannot be started here: nothing was tried."""


class TrialProcess:
    """Starts when it is first needed, and anew after each constraint that it did not survive.

    Used by one thread, but for `close`.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False

    def refusal(self, kind: str, text: str) -> str | None:
        """Return why a constraint is refused; None for one that compiles within the bounds."""
        process = self._running()
        try:
            told = self._ask(process, [kind, text])
        except (OSError, EOFError):
            code = self._end(process)
            log.warning("constraint_trial_ended", code=code)
            return TOO_MUCH
        return None if told is None else str(told)

    def close(self) -> None:
        """End it; from any thread."""
        self._closed = True
        if self._process is not None:
            self._end(self._process)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        if self._closed:
            raise TrialFailedError("closed")
        root = str(Path(worker.__file__).parent.parent)
        code = f"import sys; sys.path.insert(0, {root!r})\n"
        code += "from worker.constraints.trial import main; main()"
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        told = self._vocabulary
        try:
            self._ask(self._process, [told.tokenizer_json, told.size, sorted(told.eos_ids)])
        except (OSError, EOFError) as error:
            self._end(self._process)
            raise TrialFailedError("the process that tries constraints does not start") from error
        return self._process

    def _ask(self, process: subprocess.Popen[bytes], question: list[Any]) -> Any:
        assert process.stdin is not None  # noqa: S101 - it has pipes
        assert process.stdout is not None  # noqa: S101 - same
        data = msgpack.packb(question)
        waiting = memoryview(LENGTH.pack(len(data)) + data)
        while waiting:  # unbuffered: a pipe takes what it has room for
            waiting = waiting[process.stdin.write(waiting) :]
        output = process.stdout.fileno()
        (length,) = LENGTH.unpack(_read(output, LENGTH.size))
        return msgpack.unpackb(_read(output, length))[0]

    def _end(self, process: subprocess.Popen[bytes]) -> int:
        process.kill()
        code = process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        return code


def _read(output: int, count: int) -> bytes:
    data = b""
    with selectors.DefaultSelector() as selector:
        selector.register(output, selectors.EVENT_READ)
        while len(data) < count:
            if not selector.select(PATIENCE_SECONDS):
                raise EOFError
            piece = os.read(output, count - len(data))
            if not piece:
                raise EOFError
            data += piece
    return data
