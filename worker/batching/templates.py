"""Adapters' own chat templates, rendered in a process that bounds them.

A template is its tenant's code. The process is one for all, is started when a job first needs it,
and again when a template has ended it; requests take turns. What a template has cost is remembered
for a while, so that one which loops does so once in half a minute and not once a job.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from aril.schemas import ErrorCode, JobError
from aril.schemas.limits import MAX_PROMPT_CHARS
from aril.worker.batching import template_child
from aril.worker.batching.conversation import arguments_of, messages_of
from aril.worker.observe.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from aril.schemas import Job
    from aril.worker.adapters import AdapterWeights

CPU_SECONDS: Final = 2
"""Of one rendering; usual ones take far less."""
SPARE_BYTES: Final = 256 << 20
WORDS_CHARS: Final = 200
_START_SECONDS: Final = 60.0
_WAIT_SECONDS: Final = 30.0  # for CPU_SECONDS, on a machine that is busy
_REFUSAL_SECONDS: Final = 30.0
_MAX_REFUSALS: Final = 1_024
_MAX_ANSWER_BYTES: Final = 16 * MAX_PROMPT_CHARS  # JSON writes some characters as twelve

log = get_logger(__name__)


class TemplateRenderer:
    """Renders conversations by adapters' templates. Belongs to one event loop."""

    def __init__(
        self,
        reserved: Collection[str] = (),
        *,
        cpu_seconds: int = CPU_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`reserved` are the names that no job's variable may have."""
        self._reserved = frozenset(reserved)
        self._cpu_seconds = cpu_seconds
        self._clock = clock
        self._process: asyncio.subprocess.Process | None = None
        self._killed: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()
        self._closed = False
        self._refusals: OrderedDict[str, tuple[float, JobError]] = OrderedDict()
        self.starts = 0

    async def render(self, job: Job, adapter: AdapterWeights) -> str:
        """Return the text of the job's messages by the adapter's template.

        Raises JobError: `invalid_job` with the template's own words, or for the bound that it met,
        and `prompt_too_long`.
        """
        template = adapter.template
        text = None if template is None else template.text(tools=bool(job.tools))
        if template is None or text is None:
            raise JobError(
                ErrorCode.INVALID_JOB, "messages: the adapter has a chat template for tools only"
            )
        arguments = arguments_of(job, self._reserved, text)
        self._raise_refusal(adapter.digest)
        request = {
            "template": text,
            # As transformers does: templates are written for keys that are not there.
            "messages": [
                {name: value for name, value in turn.items() if value is not None}
                for turn in messages_of(job)
            ],
            "arguments": {**template.special, **arguments},
        }
        answer = await self._ask(json.dumps(request).encode() + b"\n")
        if "text" in answer:
            rendered: str = answer["text"]
            return rendered
        error = self._error(answer)
        if "died" in answer or answer.get("error") == template_child.NO_MEMORY:
            log.warning("adapter_template_stopped", adapter=adapter.name, why=error.message)
            self._remember(adapter.digest, error)
        raise error

    def close(self) -> None:
        """End the process; nothing is rendered any more."""
        self._closed = True
        self._kill()

    async def ended(self) -> None:
        """Close, and wait until the process is gone: a loop that is closed before complains."""
        self.close()
        if self._killed is not None:
            await self._killed.wait()

    async def _ask(self, request: bytes) -> dict[str, Any]:
        """Return the process's answer; nothing where it ended instead."""
        async with self._turn:
            try:
                process = await self._started()
                assert process.stdin is not None  # noqa: S101 - both are pipes
                assert process.stdout is not None  # noqa: S101 - same
                process.stdin.write(request)
                async with asyncio.timeout(_WAIT_SECONDS):
                    await process.stdin.drain()
                    line = await process.stdout.readline()
                    answer: dict[str, Any] = (
                        json.loads(line) if line else {"died": await process.wait()}
                    )
            except (TimeoutError, ConnectionError):
                answer = {"died": None}
            except BaseException:  # cancelled in the middle: its answer would be the next one's
                self._kill()
                raise
            if "died" in answer or answer.get("error") == template_child.NO_MEMORY:
                self._kill()
            return answer

    async def _started(self) -> asyncio.subprocess.Process:
        if self._closed:
            raise JobError(ErrorCode.INTERNAL, "the worker is leaving")
        if self._process is None or self._process.returncode is not None:
            limits = (self._cpu_seconds, SPARE_BYTES, MAX_PROMPT_CHARS, WORDS_CHARS)
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", str(Path(template_child.__file__))),
                *map(str, limits),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                limit=_MAX_ANSWER_BYTES,
                cwd="/",
                env=_environment(),
            )
            self.starts += 1
            assert self._process.stdout is not None  # noqa: S101 - a pipe
            ready = b""
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_START_SECONDS):
                    ready = await self._process.stdout.readline()
            if not ready:
                self._kill()
                log.error("template_process_failed")
                raise JobError(ErrorCode.INTERNAL, "the adapter's chat template could not be run")
        return self._process

    def _kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            # Kills, and gives the pipes back at once; a process has no public way to do both.
            self._killed = process
            process._transport.close()  # type: ignore[attr-defined]  # noqa: SLF001

    def _error(self, answer: Mapping[str, Any]) -> JobError:
        if "chars" in answer:
            return JobError(
                ErrorCode.PROMPT_TOO_LONG,
                f"messages: at most {MAX_PROMPT_CHARS} characters once rendered,"
                f" not {answer['chars']}",
                limit=MAX_PROMPT_CHARS,
                given=answer["chars"],
            )
        if answer.get("died") not in {None, -signal.SIGPROF}:
            return JobError(
                ErrorCode.INVALID_JOB, "messages: the adapter's chat template ends what runs it"
            )
        if "died" in answer:
            return JobError(
                ErrorCode.INVALID_JOB,
                "messages: the adapter's chat template takes too many seconds of a processor",
                limit=self._cpu_seconds,
            )
        kind = answer["error"]
        if kind == template_child.NO_MEMORY:
            return JobError(
                ErrorCode.INVALID_JOB,
                "messages: the adapter's chat template takes too many bytes of memory",
                limit=SPARE_BYTES,
            )
        text = f"{kind}: {answer['words']}" if kind else str(answer["words"])
        words = text if len(text) <= WORDS_CHARS else f"{text[:WORDS_CHARS]}…"
        return JobError(ErrorCode.INVALID_JOB, f"messages: the chat template refuses them: {words}")

    def _remember(self, digest: str, error: JobError) -> None:
        self._refusals[digest] = (self._clock() + _REFUSAL_SECONDS, error)
        while len(self._refusals) > _MAX_REFUSALS:
            self._refusals.popitem(last=False)

    def _raise_refusal(self, digest: str) -> None:
        until, error = self._refusals.get(digest, (0.0, None))
        if error is None:
            return
        if self._clock() < until:
            raise JobError(error.code, error.message, limit=error.limit, given=error.given)
        del self._refusals[digest]


def _environment() -> dict[str, str]:
    """Return what the process needs to know: nothing that a template should not."""
    kept = {
        name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "TZ") if name in os.environ
    }
    return kept | {
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "TRANSFORMERS_VERBOSITY": "critical",
    }
