"""The worker's end of the process that tries constraints: `aril.worker.constraints.trial`."""

from __future__ import annotations

import os
import selectors
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgpack

import aril.worker
from aril.worker.constraints.trial import LENGTH
from aril.worker.observe.logs import get_logger

if TYPE_CHECKING:
    from aril.worker.constraints.vocabulary import Vocabulary

log = get_logger(__name__)

PATIENCE_SECONDS: Final = 60.0
"""For an answer, on a machine however busy: the process bounds its own seconds of the processor."""
TOO_MUCH: Final = "it takes too much time, memory or depth to compile"


class UnreadableVocabularyError(Exception):
    """The engine cannot read this backbone's tokenizer; the message says why."""


class TrialClosedError(RuntimeError):
    """The worker is leaving: nothing is tried any more."""


class TrialProcess:
    """Starts when it is first needed, and anew after each constraint that it did not survive.

    Used by one thread, but for `close`.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False
        self._in_use = threading.Lock()

    def refusal(self, kind: str, text: str) -> str | None:
        """Return why a constraint is refused; None for one that compiles within the bounds.

        Raises UnreadableVocabularyError, OSError if there is no process to be had, and
        TrialClosedError.
        """
        with self._in_use:
            process = self._running()
            try:
                told = self._ask(process, [kind, text])
            except (OSError, EOFError):
                code = _end(process)
                if self._closed:
                    raise TrialClosedError from None
                log.warning("constraint_trial_ended", code=code)
                return TOO_MUCH
            return None if told is None else str(told)

    def close(self) -> None:
        """End it, also in the middle of a trial; from any thread."""
        self._closed = True
        if (process := self._process) is not None:
            process.kill()
            with self._in_use:
                _end(process)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._closed:
            raise TrialClosedError
        if self._process is not None:
            if self._process.poll() is None:
                return self._process
            _end(self._process)
        root = str(Path(aril.worker.__file__).parents[2])
        code = f"import sys; sys.path.insert(0, {root!r})\n"
        code += "from aril.worker.constraints.trial import main; main()"
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # what ends it may quote a tenant's words
            bufsize=0,
        )
        self._process = process
        told = self._vocabulary
        try:
            why = self._ask(process, [told.tokenizer_json, told.size, sorted(told.eos_ids)])
        except (OSError, EOFError) as error:
            _end(process)
            raise OSError("the process that tries constraints did not start") from error
        if why is not None:
            _end(process)
            raise UnreadableVocabularyError(why)
        return process

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


def _end(process: subprocess.Popen[bytes]) -> int:
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
