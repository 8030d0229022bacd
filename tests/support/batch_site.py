"""A batch in a folder, run against a broker in memory, and killed."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from aril import Client
from aril.batches.lines import Manner, read_lines
from aril.batches.output import SUFFIX, Output
from aril.batches.run import Run
from aril.batches.survey import survey
from aril.batches.tally import Tally
from aril.memory import MemoryBroker
from tests.support.remembering_worker import MortalTransport

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MANNER: Final = Manner({"sampling": {}}, tenant="acme")


def chat_line(key: str, prompt: str, **body: Any) -> dict[str, Any]:
    """Make a line of OpenAI's."""
    said = {"model": "aril", "messages": [{"role": "user", "content": prompt}], **body}
    return {"custom_id": key, "method": "POST", "url": "/v1/chat/completions", "body": said}


@dataclass
class BatchSite:
    """An input, an output, and a broker."""

    folder: Path
    broker: MemoryBroker = field(default_factory=lambda: MemoryBroker(reply_partitions=2))
    manner: Manner = MANNER

    @property
    def input(self) -> Path:
        """Where the lines are."""
        return self.folder / "in.jsonl"

    @property
    def output(self) -> Path:
        """Where the answers go."""
        return self.folder / "out.jsonl"

    def write(self, *lines: dict[str, Any]) -> None:
        """Write the input."""
        self.input.write_text("".join(json.dumps(line) + "\n" for line in lines))

    def records(self) -> list[Any]:
        """Read the output."""
        return [json.loads(line) for line in self.output.read_text().splitlines()]

    def state(self) -> tuple[bytes | None, bytes | None]:
        """Return what is on the disk."""
        sidecar = self.folder / (self.output.name + SUFFIX)
        return (
            self.output.read_bytes() if self.output.exists() else None,
            sidecar.read_bytes() if sidecar.exists() else None,
        )

    def restore(self, state: tuple[bytes | None, bytes | None]) -> None:
        """Put the disk back to what it was."""
        sidecar = self.folder / (self.output.name + SUFFIX)
        for path, data in zip((self.output, sidecar), state, strict=True):
            if data is None:
                path.unlink(missing_ok=True)
            else:
                path.write_bytes(data)

    async def run(
        self,
        transport: MortalTransport | None = None,
        *,
        retry_failed: bool = False,
        with_run: Callable[[Run], None] = lambda _run: None,
        **options: Any,
    ) -> Tally:
        """Do what the command does; `with_run` is given the run before it begins."""
        with self.input.open("rb") as file, Output(self.output) as output:
            if retry_failed:
                output.drop_errors()
            held = output.held().digests
            found = survey(file, self.manner, held)
            assert not found.told
            file.seek(0)
            tally = Tally(total=found.total, held=found.held)
            transport = transport or MortalTransport(self.broker)
            async with Client("", "acme", transport=transport) as client:
                run = Run(client, output, self.manner, tally, **options)
                with_run(run)
                await run.run(read_lines(file, self.manner), held)
        return tally

    async def killed(self, steps: int, *, politely: bool, torn: int = 0) -> bool:
        """Run, and kill it after so many turns of the event loop; return whether that was in time.

        Politely: its task is cancelled, and cleans up. Else nothing that it does from then on
        reaches the broker or the disk, and `torn` bytes of what it wrote last do not either.
        """
        transport = MortalTransport(self.broker)
        task = asyncio.create_task(self.run(transport))
        for _ in range(steps):
            await asyncio.sleep(0)
            if task.done():
                await task
                return False
        if politely:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            return True
        transport.dead = True
        written, sidecar = self.state()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if written:
            last = len(written.rstrip(b"\n").rpartition(b"\n")[2])
            written = written[: len(written) - min(torn, last)]
        self.restore((written, sidecar))
        return True
