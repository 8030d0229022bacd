"""One batch, from where it stands to its end; for who holds its lock.

Each step is written before the next begins, and does the same when it is done again: so whoever
takes a batch over begins with the step that its record names.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, BinaryIO, Final, NamedTuple

from aril.batches.lines import read_lines
from aril.batches.output import BadOutput, Output, OutputInUse
from aril.batches.run import Run
from aril.batches.survey import survey
from aril.batches.tally import Tally
from aril.gateway.stored.batches import ANSWERS, INPUT
from aril.gateway.stored.disk import FILE_MODE
from aril.gateway.stored.ids import FILE, name_of, new_id
from aril.gateway.stored.records import Fault
from aril.gateway.stored.results import write_results

if TYPE_CHECKING:
    from collections.abc import Callable

    from aril.batches.output import Held
    from aril.client import Client
    from aril.gateway.stored.batches import Batches
    from aril.gateway.stored.files import Files
    from aril.gateway.stored.records import Batch, Ending

LOOK_SECONDS: Final = 1.0
"""How often a batch that is worked on looks whether it is to end, and writes how far it is."""
UNREADABLE: Final = Fault(code="internal", message="the answers cannot be read")


class _Opened(NamedTuple):
    """The files of a batch that is being answered."""

    source: BinaryIO
    output: Output
    held: Held


class Runner:
    """Works on one batch of a tenant. Lives on one event loop; its files are read in threads."""

    def __init__(
        self,
        tenant: str,
        batches: Batches,
        files: Files,
        client: Callable[[str], Client],
        *,
        concurrency: int,
    ) -> None:
        """Prepare; `concurrency` is how many jobs are asked at once, `client` gives a tenant's."""
        self._tenant = tenant
        self._batches = batches
        self._files = files
        self._client = client
        self._concurrency = concurrency
        self._stopped = False
        self._run: Run | None = None
        self.tally = Tally()

    async def run(self, name: str) -> Batch | None:
        """Bring a batch to its end and return it; None after `stop`, or if there is no such batch.

        Raises `BrokerUnavailable`, `BadKey`, `OutputInUse`, OSError: what it has reached is kept.
        """
        batch = await asyncio.to_thread(self._batches.get, name)
        if batch is None:
            return None
        if batch.status == "validating":
            batch = await asyncio.to_thread(self._validate, batch)
        if batch.status == "in_progress":
            try:
                batch = await self._answer(batch)
            except OutputInUse:
                raise  # a process that is just dying lets go of one lock after the other
            except BadOutput:
                batch = await asyncio.to_thread(self._failed, batch, [UNREADABLE])
        if batch.ending is not None and not batch.is_over:
            batch = await asyncio.to_thread(self._finish, batch)
        return batch if batch.is_over else None

    def stop(self) -> None:
        """Ask nothing more; what runs is left to the service, where the next runner finds it."""
        self._stopped = True
        if self._run is not None:
            self._run.stop()

    # --- its steps

    def _validate(self, batch: Batch) -> Batch:
        if (ending := self._ending(batch)) is not None:
            return self._closing(batch, ending)
        with (self._batches.folder(batch.id) / INPUT).open("rb") as source:
            found = survey(source, batch.manner(self._tenant), endpoint=batch.endpoint)
        if found.wrong:
            told = [
                Fault(code=each.code, message=each.message, line=each.number, param=each.param)
                for each in found.told
            ]
            return self._failed(batch, told)
        if not found.total:
            return self._failed(batch, [Fault(code="empty_batch", message="the file has no line")])
        return self._saved(batch.move("in_progress", total=found.total))

    async def _answer(self, batch: Batch) -> Batch:
        ending = await asyncio.to_thread(self._ending, batch)
        if ending is None:
            with contextlib.ExitStack() as stack:
                opened = await asyncio.to_thread(self._open, batch, stack)
                self.tally = Tally(total=batch.total, held=len(opened.held.digests))
                if not self._stopped and self.tally.done < batch.total:
                    ending = await self._ask(batch, opened)
                await asyncio.to_thread(stack.close)
            batch = self._counted(batch, opened.held)
            if self.tally.done >= batch.total and ending != "cancelled":
                ending = "completed"
        if ending is None:
            return await asyncio.to_thread(self._saved, batch)
        return await asyncio.to_thread(self._closing, batch, ending)

    def _finish(self, batch: Batch) -> Batch:
        if batch.ending is None:
            raise TypeError("a batch that has come to nothing yet")
        output, good = self._files.begin(batch.output_file)
        errors, bad = self._files.begin(batch.error_file)
        folder = self._batches.folder(batch.id)
        with good, bad:
            results = write_results(
                folder / ANSWERS,
                folder / INPUT,
                batch.manner(self._tenant),
                name=name_of(batch.id),
                ending=batch.ending,
                good=good,
                bad=bad,
            )
            for name, part, what in ((output, good, "output"), (errors, bad, "error")):
                if part.bytes:
                    self._files.keep(
                        name,
                        part,
                        filename=f"{batch.id}_{what}.jsonl",
                        purpose="batch_output",
                        seconds=batch.output_seconds,
                    )
        counted = {"completed": results.completed, "failed": results.failed}
        total = max(batch.total, results.completed + results.failed)
        batch = self._saved(batch.move(batch.ending, **counted, total=total, usage=results.usage))
        self._batches.tidy(batch.id)
        return batch

    # --- what they are made of

    def _open(self, batch: Batch, stack: contextlib.ExitStack) -> _Opened:
        folder = self._batches.folder(batch.id)
        source = stack.enter_context((folder / INPUT).open("rb"))
        answers = Output(folder / ANSWERS, name=name_of(batch.id), mode=FILE_MODE)
        output = stack.enter_context(answers)
        return _Opened(source, output, output.held())

    async def _ask(self, batch: Batch, opened: _Opened) -> Ending | None:
        """Ask what is not answered; return what ends it before it is complete, if anything does."""
        manner = batch.manner(self._tenant)
        self._run = run = Run(
            self._client(self._tenant),
            opened.output,
            manner,
            self.tally,
            concurrency=self._concurrency,
        )
        over = asyncio.Event()
        watching = asyncio.create_task(self._watch(batch, run, opened.held, over))
        try:
            await run.run(read_lines(opened.source, manner), opened.held.digests)
        finally:
            self._run = None
            over.set()
            await asyncio.wait({watching})  # what it writes may not come after what is written next
        return watching.result()

    async def _watch(
        self, batch: Batch, run: Run, held: Held, over: asyncio.Event
    ) -> Ending | None:
        """Write how far it is until it is `over`; where it is to end, end it and return why."""
        told = 0
        try:
            while not over.is_set():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_SECONDS):
                        await over.wait()
                if (ending := await asyncio.to_thread(self._ending, batch)) is not None:
                    run.cancel()
                    return ending
                if self.tally.written != told:
                    told = self.tally.written
                    counted = self._counted(batch, held)
                    await asyncio.to_thread(self._batches.save, counted, durable=False)
        except OSError:
            run.stop()
            raise
        return None

    def _counted(self, batch: Batch, held: Held) -> Batch:
        failed = held.failed + self.tally.failed.total()
        counted = {"completed": self.tally.done - failed, "failed": failed}
        return batch.model_copy(update=counted)

    def _ending(self, batch: Batch) -> Ending | None:
        if self._batches.cancel_at(batch.id) is not None:
            return "cancelled"
        return "expired" if time.time() >= batch.expires_at else None

    def _closing(self, batch: Batch, ending: Ending) -> Batch:
        """Write what it comes to, and under which ids its files will be."""
        told = {"ending": ending, "output_file": new_id(FILE), "error_file": new_id(FILE)}
        if ending == "cancelled":
            at = self._batches.cancel_at(batch.id)
            return self._saved(batch.move("cancelling", cancelling_at=at, **told))
        return self._saved(batch.move("finalizing", **told))

    def _failed(self, batch: Batch, faults: list[Fault]) -> Batch:
        batch = self._saved(batch.move("failed", faults=tuple(faults)))
        self._batches.tidy(batch.id)
        return batch

    def _saved(self, batch: Batch) -> Batch:
        self._batches.save(batch)
        return batch
