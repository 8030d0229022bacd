"""All lines of a batch, so many at a time: each is asked, its answer written when it is there.

Memory is that of the lines in flight. `stop` asks nothing more, goes on reading for some seconds,
and leaves what runs then to the service, where the next run finds it; `cancel` ends it.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from aril.batches.asking import Asker, Left
from aril.batches.lines import BadLine, question_of
from aril.batches.records import answer_record, error_record
from aril.batches.window import Window
from aril.errors import ArilError, BrokerUnavailable, ClientClosed, JobFailed
from aril.openai.errors import Refused

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aril.batches.digests import Digests
    from aril.batches.lines import Line, Manner, Question
    from aril.batches.output import Output
    from aril.batches.tally import Tally
    from aril.client import Client
    from aril.openai.answers import Answer

CONCURRENCY: Final = 256
LEAVE_SECONDS: Final = 3.0
"""How long a run that is stopped still takes the answers that come."""
SKIPPED_AT_ONCE: Final = 50
"""Lines that are passed over before anybody else gets a turn."""
INLINE_BYTES: Final = 1_024
"""Of a line that is judged on the event loop, in 0.1 ms; one of 1,024 prompts takes 130 ms."""


class Run:
    """One run over a file. Make it and await `run` on one event loop."""

    def __init__(
        self,
        client: Client,
        output: Output,
        manner: Manner,
        tally: Tally,
        *,
        concurrency: int = CONCURRENCY,
        timeout: float | None = None,
        leave_seconds: float = LEAVE_SECONDS,
    ) -> None:
        """Prepare: `concurrency` jobs at once at most, `timeout` seconds for an attempt of each."""
        self._client = client
        self._output = output
        self._manner = manner
        self._tally = tally
        self._leave_seconds = leave_seconds
        self.window = Window(concurrency)
        self._asker = Asker(client, self.window, tally, timeout=timeout)
        self._room = asyncio.Semaphore(concurrency)
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopped = asyncio.Event()
        self._cancelled = asyncio.Event()
        self._fatal: BaseException | None = None

    async def run(self, lines: Iterable[Line | BadLine], held: Digests) -> None:
        """Ask the lines that are not `held`; return when all are answered, or `stop` was called.

        Raises `BadLine` if the file is not what was checked, `BrokerUnavailable` when there is
        nobody to ask, OSError when nothing can be written. Whatever ends it, what runs is left.
        """
        feeding = asyncio.create_task(self._feed(lines, held))
        stopped = asyncio.create_task(self._stopped.wait())
        try:
            await asyncio.wait({feeding, stopped}, return_when=asyncio.FIRST_COMPLETED)
            feeding.cancel()
            if self._fatal is None and self._tasks:
                await self._last_answers()
        finally:
            feeding.cancel()
            stopped.cancel()
            self._tally.left = await self._asker.leave(cancel=self._cancelled.is_set())
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(feeding, stopped, *self._tasks, return_exceptions=True)
        if self._fatal is not None:
            raise self._fatal

    def stop(self) -> None:
        """Ask nothing more; what runs is left after some seconds."""
        self._asker.stop()
        self._stopped.set()

    def cancel(self) -> None:
        """End what runs, too; the next run asks it anew, under other ids."""
        if not self._cancelled.is_set():
            self._output.begin_round()
            self._cancelled.set()
            self.stop()

    async def _feed(self, lines: Iterable[Line | BadLine], held: Digests) -> None:
        try:
            for at, line in enumerate(lines):
                if isinstance(line, BadLine):
                    self._fail(line)
                    return
                if line.short in held:
                    if at % SKIPPED_AT_ONCE == 0:
                        await asyncio.sleep(0)
                    continue
                await self._room.acquire()
                task = asyncio.create_task(self._line(line))
                self._tasks.add(task)
                self._tally.running = len(self._tasks)
                task.add_done_callback(self._ended)
                await asyncio.sleep(0)  # so that it is one line in a turn of the loop
            while self._tasks:
                await asyncio.wait([*self._tasks])
        except Exception as error:  # noqa: BLE001 - raised by `run`: else what was read would look whole
            self._fail(error)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._tally.running = len(self._tasks)
        self._room.release()
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        self._fatal = self._fatal or error
        self.stop()

    async def _last_answers(self) -> None:
        cancelled = asyncio.create_task(self._cancelled.wait())
        done = asyncio.create_task(self._drained())
        await asyncio.wait(
            {cancelled, done}, timeout=self._leave_seconds, return_when=asyncio.FIRST_COMPLETED
        )
        cancelled.cancel()
        done.cancel()

    async def _drained(self) -> None:
        while self._tasks:
            await asyncio.wait([*self._tasks])

    async def _line(self, line: Line) -> None:
        if line.bytes <= INLINE_BYTES:
            question = question_of(line, self._manner)
        else:
            question = await asyncio.to_thread(question_of, line, self._manner)
        try:
            answers = await self._answers(question)
        except Left:
            return
        except (BrokerUnavailable, ClientClosed):
            raise
        except (ArilError, Refused) as error:
            job = getattr(error, "job", None)
            self._output.append(error_record(line, self._output.name, error, job))
            self._tally.failed[_code_of(error)] += 1
            return
        record = answer_record(question, self._output.name, answers, created=int(time.time()))
        self._output.append(record)
        self._tally.answered += 1
        self._tally.tokens += sum(len(answer.token_ids) for answer in answers)

    async def _answers(self, question: Question) -> list[Answer]:
        if question.refusal is not None:
            raise question.refusal
        name = self._output.name
        asked = [
            self._asker.answer(
                fields,
                lambda attempt, at=at: question.job_id(name, at, attempt),  # type: ignore[misc]
            )
            for at, fields in enumerate(question.jobs)
        ]
        if len(asked) == 1:
            return [await asked[0]]
        # To the end of all, even if one fails: what is cancelled would be an end under its id.
        found = await asyncio.gather(*asked, return_exceptions=True)
        for each in found:
            if isinstance(each, BaseException):
                raise each
        return [each for each in found if not isinstance(each, BaseException)]


def _code_of(error: ArilError | Refused) -> str:
    if isinstance(error, JobFailed | Refused):
        return error.code.value
    return type(error).__name__
