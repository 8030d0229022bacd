"""Streams, events and graphs of a device that is none (fake_gpu.py)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch

if TYPE_CHECKING:
    from collections.abc import Callable


class FakeStream:
    """Does nothing until somebody lets it: what is written in place there stands in a queue.

    The first one is the device's own and does all at once.
    """

    def __init__(self, device: object = None, *, at_once: bool = False) -> None:
        self.device = device
        self.device_index = 0
        self.at_once = at_once
        self.waiting: list[Callable[[], object]] = []
        self.done = 0
        self.waited = 0  # times that it was to wait for another one
        self.fetches: list[Callable[[], object]] = []  # to pinned memory, that no event is behind

    def wait_stream(self, other: FakeStream) -> None:
        """Let all be done there before what comes here."""
        other.run()
        self.waited += 1

    def wait_event(self, event: FakeEvent) -> None:
        """Go on behind it: what goes on at once has it done now."""
        event.finish()

    def run(self) -> None:
        """Do what waits."""
        with torch.inference_mode():  # as whoever asked for it
            while self.waiting:
                self.waiting.pop(0)()
                self.done += 1


class Waited(Protocol):
    """Who counts what the host waits for."""

    reads: list[str]


class FakeEvent:
    """A place in a stream; when the host waits for it, that is a read of the device."""

    def __init__(self, device: Waited) -> None:
        self.stream: FakeStream | None = None
        self.place = 0
        self._device = device
        self._fetches: list[Callable[[], object]] = []

    def record(self, stream: FakeStream) -> None:
        """Stand behind all that was asked of a stream until now."""
        self.stream, self.place = stream, stream.done + len(stream.waiting)
        self._fetches, stream.fetches = stream.fetches, []

    def synchronize(self) -> None:
        """Have the host wait for it: what was fetched before it is there."""
        self._device.reads.append("event")
        self.finish()
        while self._fetches:
            self._fetches.pop(0)()

    def query(self) -> bool:
        """Whether all of that is done."""
        return self.stream is None or self.stream.done >= self.place

    def finish(self) -> None:
        """Have it done."""
        if self.stream is not None:
            self.stream.run()


class FakeGraph:
    """What was launched while it was captured: again with the very tensors, and nothing else.

    Numbers that Python had by then are what they were, as in a CUDA graph.
    """

    def __init__(self) -> None:
        self.calls: list[Callable[[], None]] = []
        self.replays = 0

    def replay(self) -> None:
        """Launch it again."""
        self.replays += 1
        with torch.inference_mode():
            for call in self.calls:
                call()
