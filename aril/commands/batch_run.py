"""A run of `aril batch run`: the files, the loop, Ctrl-C, and what is said in the end."""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import TYPE_CHECKING, Any

from aril.arguments import FAILED, INTERRUPTED, OK, UsageError
from aril.batches.lines import read_lines
from aril.batches.output import Output
from aril.batches.run import Run
from aril.batches.survey import survey
from aril.batches.tally import Tally
from aril.client import Client
from aril.commands.batch_progress import display_for, watch

if TYPE_CHECKING:
    import argparse
    from typing import BinaryIO

    from aril.batches.digests import Digests
    from aril.batches.lines import Manner
    from aril.batches.survey import Survey


def answer_file(arguments: argparse.Namespace, manner: Manner, options: dict[str, Any]) -> int:
    """Answer the input into the output; return the exit code. `options` are a client's.

    Raises `BadOutput`, `BadLine`, `ArilError`, OSError, and UsageError for an input that is unfit.
    """
    if arguments.output.exists() and arguments.input.samefile(arguments.output):
        raise UsageError("batch: IN and OUT are one file")
    with (
        arguments.input.open("rb") as file,
        Output(arguments.output, name=arguments.name) as output,
    ):
        held = output.held()
        found = survey(file, manner, held.digests)
        if found.wrong:
            tell_bad(found)
            raise UsageError(f"batch: {found.wrong:,} bad lines; nothing was asked")
        if arguments.retry_failed and output.drop_errors():
            file.seek(0)
            held = output.held()
            found = survey(file, manner, held.digests)
        tally = Tally(total=found.total, held=found.held)
        file.seek(0)
        one = _One(arguments, output, tally, manner)
        code = asyncio.run(one.run(Client(**options), file, held.digests))
        if not arguments.quiet:
            one.tell(stale=len(held.digests) - found.held)
        if code == OK and (tally.failed or held.failed):
            return FAILED
        return code


def tell_bad(found: Survey) -> None:
    """Say which lines are bad: the first of them, and how many more there are."""
    for line in found.told:
        print(f"aril: batch: {line}", file=sys.stderr)
    if found.wrong > len(found.told):
        print(f"aril: batch: and {found.wrong - len(found.told):,} more", file=sys.stderr)


class _One:
    """One run, as its user sees it."""

    def __init__(
        self, arguments: argparse.Namespace, output: Output, tally: Tally, manner: Manner
    ) -> None:
        self._arguments = arguments
        self._output = output
        self._tally = tally
        self._manner = manner
        self._signals = 0
        self._run: Run | None = None

    async def run(self, client: Client, file: BinaryIO, held: Digests) -> int:
        """Ask and write; return the exit code, without what failed."""
        if self._tally.held == self._tally.total:
            return OK
        loop = asyncio.get_running_loop()
        async with client:
            self._run = Run(
                client,
                self._output,
                self._manner,
                self._tally,
                concurrency=self._arguments.concurrency,
                timeout=self._arguments.timeout,
            )
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, self._interrupted)
            display = display_for(quiet=self._arguments.quiet)
            watching = display and asyncio.create_task(
                watch(display, self._tally, self._run.window)
            )
            try:
                await self._run.run(read_lines(file, self._manner), held)
            finally:
                if watching:
                    watching.cancel()
                    await asyncio.gather(watching, return_exceptions=True)
        missing = self._tally.total - self._tally.done
        return INTERRUPTED if self._signals and missing else OK

    def _interrupted(self) -> None:
        self._signals += 1
        if self._run is None:
            return
        if self._signals == 1:
            self._run.stop()
            self._say("stopping; once more cancels what runs")
        else:
            self._run.cancel()

    def tell(self, *, stale: int) -> None:
        """Say what was done, and what is left."""
        tally = self._tally
        if tally.left and self._signals > 1:
            self._say(f"{tally.left:,} jobs were cancelled; the next run asks them anew")
        elif tally.left:
            self._say(f"{tally.left:,} jobs go on; the same command finds their answers")
        if stale > 0:
            self._say(f"{stale:,} lines of {self._arguments.output} answer what IN does not ask")
        self._say(tally.told())

    def _say(self, text: str) -> None:
        if not self._arguments.quiet:
            print(f"aril: batch: {text}", file=sys.stderr, flush=True)
