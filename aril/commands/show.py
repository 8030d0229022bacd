"""How `aril send` shows events: as plain text, as woven lines, or as JSON."""

from __future__ import annotations

import json
import shutil
import sys
import time
from typing import TYPE_CHECKING, Final, Protocol

from aril.event_fields import fields_of_error, fields_of_event
from aril.render import COLOURS, DIM, RESET, Weaver, printable
from aril.schemas import DoneEvent, ResetEvent, TokensEvent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aril.errors import ArilError
    from aril.schemas import Event
    from aril.stream import Stream

SHORT_DIGEST: Final = 12


class Printer(Protocol):
    """Shows the events of some streams."""

    def event(self, stream: Stream, event: Event) -> None:
        """Show one event."""

    def failed(self, stream: Stream, error: ArilError) -> None:
        """Show that a stream ended without an answer."""


def printer_for(streams: Sequence[Stream], *, as_json: bool) -> Printer:
    """Return the way to show these streams on standard output."""
    if as_json:
        return JsonPrinter()
    return TextPrinter() if len(streams) == 1 else LinesPrinter(streams)


class JsonPrinter:
    """One JSON object a line: job, event, its fields, and the token to resume from."""

    def event(self, stream: Stream, event: Event) -> None:
        """Print one event."""
        fields = fields_of_event(event)
        self._print({"job": stream.job, **fields, "token": str(stream.token)})

    def failed(self, stream: Stream, error: ArilError) -> None:
        """Print an error event."""
        self._print({"job": stream.job, **fields_of_error(error)})

    @staticmethod
    def _print(fields: dict[str, object]) -> None:
        print(json.dumps(fields, ensure_ascii=False), flush=True)


class TextPrinter:
    """The answer as it is; on a terminal a closing line of facts, on standard error."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._first: float | None = None

    def event(self, stream: Stream, event: Event) -> None:  # noqa: ARG002 - there is only one
        """Print what the event adds."""
        if isinstance(event, TokensEvent):
            self._first = self._first or time.monotonic()
            self._write(event.text)
        elif isinstance(event, ResetEvent):
            print("\n[the answer begins anew]", file=sys.stderr, flush=True)
        elif isinstance(event, DoneEvent):
            self._write(event.text + "\n")
            if sys.stderr.isatty():
                print(f"{DIM}{self._facts(event)}{RESET}", file=sys.stderr)

    def failed(self, stream: Stream, error: ArilError) -> None:
        """Say why on standard error."""
        if self._first is not None and sys.stdout.isatty():
            print(flush=True)
        print(f"aril: job {stream.job}: {printable(str(error))}", file=sys.stderr)

    def _facts(self, event: DoneEvent) -> str:
        seconds = time.monotonic() - self._started
        first = (self._first or time.monotonic()) - self._started
        return (
            f"{event.usage.completion_tokens} tokens in {seconds:.1f} s, first after {first:.2f} s"
            f" · {described(event)}"
        )

    @staticmethod
    def _write(text: str) -> None:
        sys.stdout.write(printable(text) if sys.stdout.isatty() else text)
        sys.stdout.flush()


class LinesPrinter:
    """Several answers, line by line, each marked with the number of its prompt."""

    def __init__(self, streams: Sequence[Stream]) -> None:
        prefixes = {stream.job: str(at) for at, stream in enumerate(streams, start=1)}
        colours = {stream.job: COLOURS[at % len(COLOURS)] for at, stream in enumerate(streams)}
        self._weaver = Weaver(
            prefixes,
            width=shutil.get_terminal_size().columns,
            colours=colours if sys.stdout.isatty() else None,
        )

    def event(self, stream: Stream, event: Event) -> None:
        """Take what the event adds."""
        if isinstance(event, TokensEvent):
            self._weaver.add(stream.job, event.text)
        elif isinstance(event, ResetEvent):
            self._weaver.end(stream.job, "[the answer begins anew]")
        elif isinstance(event, DoneEvent):
            self._weaver.add(stream.job, event.text)
            tokens = event.usage.completion_tokens
            self._weaver.end(stream.job, f"[{tokens} tokens, {described(event)}]")

    def failed(self, stream: Stream, error: ArilError) -> None:
        """Say why among the lines."""
        self._weaver.end(stream.job, f"[{error}]")


def described(event: DoneEvent) -> str:
    """Return who answered: the adapter and the beginning of its digest, or the backbone."""
    if event.adapters:
        return " + ".join(
            f"{each.weight:g} · {each.name}@{each.digest[:SHORT_DIGEST]}" for each in event.adapters
        )
    if event.adapter is None:
        return event.base
    told = f"{event.adapter}@{(event.digest or '')[:SHORT_DIGEST]}"
    if event.activation is not None and event.activation.start is None:
        return f"{event.base}: the invocation of {told} is not in the prompt"
    return told
