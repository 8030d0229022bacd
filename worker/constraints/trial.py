"""A process in which each constraint is tried first, with bounds that only a process has.

The engine's own bounds hold for most of what a hostile tenant may send, not for all: intersections
of regular expressions take it hours, rules that nest thousands of others overflow its stack, and a
thread can be neither stopped nor outlived. Here the processor's seconds and the memory are bounded
by the system; what does not come back is refused, and the next one gets a new process.

Records on stdin and stdout are msgpack behind four bytes of length: first the vocabulary, then
[kind, text] for [reason, or nil]. Reads EOF, and ends, when the worker is gone.
"""

from __future__ import annotations

import contextlib
import random
import resource
import signal
import struct
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgpack

from aril.worker.constraints.bounds import CPU_SECONDS, MEMORY_BYTES, STACK_BYTES
from aril.worker.constraints.grammar import (
    GrammarError,
    compile_grammar,
    make_tokenizer,
    to_grammar,
)

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

LENGTH: Final = struct.Struct(">I")
WALKS: Final = 2
TOKENS: Final = 24


def serve() -> None:
    """Try what comes until nothing comes any more, or nobody is there to hear."""
    with contextlib.suppress(BrokenPipeError):
        _serve()


def _serve() -> None:
    vocabulary = _read()
    if vocabulary is None:
        return
    try:
        tokenizer = make_tokenizer(*vocabulary)
    except ValueError as error:
        _write(str(error))
        return
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        bound = pages * resource.getpagesize() + MEMORY_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (bound, bound))
    _write(None)
    while (asked := _read()) is not None:
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)  # ends the process, unhandled
        reason = _try(tokenizer, *asked)
        signal.setitimer(signal.ITIMER_PROF, 0)
        _write(reason)


def _try(tokenizer: LLTokenizer, kind: str, text: str) -> str | None:
    try:
        matcher = compile_grammar(tokenizer, to_grammar(kind, text))
    except GrammarError as error:
        return str(error)
    chance = random.Random(0)
    for _ in range(WALKS):
        _draw(matcher.deep_copy(), chance)
    return None


def _draw(matcher: LLMatcher, chance: random.Random) -> None:
    """Write tokens at random: steps that would take too long end the process as well."""
    for _ in range(TOKENS):
        mask = int.from_bytes(matcher.compute_bitmask(), "little")
        if matcher.is_stopped() or not mask:
            return
        at = chance.randrange(mask.bit_length())
        above = mask >> at
        matcher.consume_token(at + (above & -above).bit_length() - 1)


def _read() -> Any:
    head = sys.stdin.buffer.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    (length,) = LENGTH.unpack(head)
    data = sys.stdin.buffer.read(length)
    return msgpack.unpackb(data) if len(data) == length else None


def _write(value: object) -> None:
    data = msgpack.packb([value])
    sys.stdout.buffer.write(LENGTH.pack(len(data)) + data)
    sys.stdout.buffer.flush()


def main() -> None:
    """Serve in a thread, since only a thread's stack can be chosen."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the worker's to answer
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    threading.stack_size(STACK_BYTES)
    thread = threading.Thread(target=serve)
    thread.start()
    thread.join()
