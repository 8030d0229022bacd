"""`aril.texts` for threads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aril.texts import Shown, withdraw

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from aril.blocking.stream import Stream


def texts(
    stream: Stream, *, on_reset: Callable[[], object] | None = None
) -> Generator[str, None, None]:
    """Give a stream's text piece by piece; see `aril.texts.texts`."""
    with stream:
        shown = Shown(before=stream.token.count > 0)
        for event in stream:
            withdrawn, piece = shown.add(event)
            if withdrawn:
                withdraw(stream, on_reset)
            if piece:
                yield piece
