"""Filling a slot while steps go on: a stream of its own, and an event behind what was copied."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator


class Arrival:
    """Stands behind what was copied."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._event = torch.cuda.Event()

    def record(self, stream: torch.cuda.Stream) -> None:
        """Stand behind all that a stream was asked until now."""
        self._event.record(stream)

    def query(self) -> bool:
        """Whether all of it is there: whatever is asked of the device from then on sees it."""
        return self._event.query()

    def wait(self) -> None:
        """Let the steps that are asked from now on wait for it, on the device; the host goes on."""
        torch.cuda.current_stream(self._device).wait_event(self._event)


class CopyStream:
    """A GPU's second stream. For the thread that runs the steps."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)

    @classmethod
    def of(cls, device: torch.device) -> Self | None:
        """Make one for a GPU; on a CPU whoever copies is done when it returns."""
        return cls(device) if device.type == "cuda" else None

    @contextmanager
    def copying(self) -> Iterator[Arrival]:
        """Ask the second stream all that is asked meanwhile; yields what stands behind it.

        It begins when the device is through with what it was asked until now: a step that is under
        way may still read what is about to be overwritten, and memory that is freed here is read by
        nobody when it is used again.
        """
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        arrival = Arrival(self._device)
        with torch.cuda.stream(self._stream):
            yield arrival
            arrival.record(self._stream)
