"""The clocks: which calls they make, and what they divide by. A stand-in plays CUDA."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import torch

from benchmarks.gpu import timing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MICROSECONDS = {"short": 2.0, "long": 30.0}


class StandIn:
    """A device whose kernels take the time they are said to: records, replays, events."""

    def __init__(self) -> None:
        self.now = 0.0
        self.captured: list[str] | None = None
        self.replayed: list[str] = []

    def call(self, name: str) -> Callable[[], None]:
        """Return a call that is recorded in a graph, or takes its time."""

        def run() -> None:
            if self.captured is not None:
                self.captured.append(name)
            else:
                self.now += MICROSECONDS[name]

        return run

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Take the place of torch.cuda's graphs and events."""
        device = self

        class Graph:
            def __init__(self) -> None:
                self.calls: list[str] = []

            def replay(self) -> None:
                device.replayed.append(self.calls[0])
                device.now += sum(MICROSECONDS[name] for name in self.calls)

        class Event:
            def __init__(self, *, enable_timing: bool) -> None:
                assert enable_timing
                self.at = 0.0

            def record(self) -> None:
                self.at = device.now

            def synchronize(self) -> None:
                """Nothing is asynchronous here."""

            def elapsed_time(self, later: Event) -> float:
                return (later.at - self.at) / 1e3

        @contextmanager
        def capture(graph: Graph) -> Iterator[None]:
            device.captured = graph.calls
            yield
            device.captured = None

        for name, replacement in {
            "CUDAGraph": Graph,
            "Event": Event,
            "graph": capture,
            "synchronize": lambda *_: None,
        }.items():
            monkeypatch.setattr(torch.cuda, name, replacement)


def test_a_graphs_time_is_that_of_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pools of any length, a median that is the kernel's own time, and ways that take turns."""
    device = StandIn()
    device.install(monkeypatch)
    calls = {name: [device.call(name)] * count for name, count in (("short", 3), ("long", 100))}
    times = timing.graph_times(calls, repetitions=5)
    assert {name: len(samples) for name, samples in times.items()} == {"short": 5, "long": 5}
    for name, samples in times.items():
        assert samples == pytest.approx([MICROSECONDS[name]] * 5)
    assert device.replayed == ["short", "long"] * 7


def test_eager_calls_go_through_the_whole_pool() -> None:
    """No set of operands is called twice before all others were."""
    made: list[int] = []
    pool = [lambda i=i: made.append(i) for i in range(5)]
    times = timing.eager_times({"way": pool}, torch.device("cpu"), repetitions=4, at_once=3)
    assert made == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]
    assert len(times["way"]) == 4
    assert min(times["way"]) > 0


@pytest.mark.parametrize(("moved", "sets"), [(1, 400), (1_000_000, 126), (10**9, 2)])
def test_the_pool_is_larger_than_the_cache(
    monkeypatch: pytest.MonkeyPatch, moved: int, sets: int
) -> None:
    """Two and a half times the cache, two to 400 sets; one set where nothing is timed."""

    class Properties:
        L2_cache_size = 50_000_000

    def properties(_: Any) -> type[Properties]:
        return Properties

    monkeypatch.setattr(torch.cuda, "get_device_properties", properties)
    assert timing.sets_needed(moved, torch.device("cuda")) == sets
    assert timing.sets_needed(moved, torch.device("cpu")) == 1
