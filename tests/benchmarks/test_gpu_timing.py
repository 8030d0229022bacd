"""The clocks: which calls they make, and what they divide by. A stand-in plays CUDA."""

from __future__ import annotations

import weakref
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from aril.kernels.sgmv.cost import Roofs
from benchmarks.gpu import timing
from benchmarks.gpu.failures import survive
from benchmarks.gpu.results import Results
from benchmarks.gpu.trial import BANDWIDTH, SHARE, Report, Trial
from benchmarks.gpu.workloads import TINY, Workload, decode_case

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MICROSECONDS = {"short": 2.0, "long": 30.0, "fails": 5.0}
STREAM = SimpleNamespace(device_index=0)
POOL = (0, 7)


class StandIn:
    """A device whose kernels take the time they are said to: records, replays, events."""

    def __init__(self) -> None:
        self.now = 0.0
        self.captured: list[str] | None = None
        self.replayed: list[str] = []
        self.calls = 0
        self.invalidates = False
        self.breaks_at_replay = ""
        self.stream: object = STREAM
        self.ended: list[tuple[int, tuple[int, int]]] = []

    def call(self, name: str, *, fails_at: int = 0) -> Callable[[], None]:
        """Return a call that is recorded in a graph, or takes its time; the n-th raises."""

        def run() -> None:
            self.calls += fails_at > 0
            if fails_at and self.calls == fails_at:
                raise torch.OutOfMemoryError("CUDA out of memory")
            if self.captured is not None:
                self.captured.append(name)
            else:
                self.now += MICROSECONDS[name]

        return run

    @contextmanager
    def capture(self, graph: Any, pool: tuple[int, int]) -> Iterator[None]:
        """Record a graph as `torch.cuda.graph` does."""
        assert pool == POOL
        self.captured = graph.calls
        self.stream = "the capture's"
        try:
            yield
        except torch.OutOfMemoryError:
            self.captured = None
            if self.invalidates:  # torch then leaves the stream as it is
                raise RuntimeError("operation failed due to a previous error") from None
            self.stream = STREAM
            raise
        self.captured = None
        self.stream = STREAM

    def set_stream(self, stream: object) -> None:
        """Work on another stream."""
        self.stream = stream

    def end(self, index: int, pool: tuple[int, int]) -> None:
        """End a capture's allocations, which one that ended well has done already."""
        if not self.invalidates:
            raise RuntimeError("endAllocatePool: not currently recording to mempool_id")
        self.ended.append((index, pool))

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Take the place of torch.cuda's graphs and events."""
        device = self

        class Graph:
            def __init__(self) -> None:
                self.calls: list[str] = []

            def replay(self) -> None:
                if self.calls[0] == device.breaks_at_replay:
                    raise RuntimeError("CUDA error: unspecified launch failure")
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

        for name, replacement in {
            "CUDAGraph": Graph,
            "Event": Event,
            "graph": lambda graph, *, pool, **_: device.capture(graph, pool),
            "synchronize": lambda *_: None,
            "current_stream": lambda: device.stream,
            "set_stream": device.set_stream,
            "graph_pool_handle": lambda: POOL,
        }.items():
            monkeypatch.setattr(torch.cuda, name, replacement)
        monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", device.end, raising=False)
        monkeypatch.setattr(torch._C, "_cuda_releasePool", lambda *_: None, raising=False)


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


# A pool of two: two calls warm up, two more tell how long they take, the fifth is captured.
@pytest.mark.parametrize("fails_at", [1, 3, 5])
def test_one_that_fails_leaves_the_others_their_times(
    monkeypatch: pytest.MonkeyPatch, fails_at: int
) -> None:
    """In warm-up or capture: it has no times, and who asked for it hears why."""
    device = StandIn()
    device.install(monkeypatch)
    calls = {
        "short": [device.call("short")],
        "fails": [device.call("fails", fails_at=fails_at)] * 2,
        "long": [device.call("long")],
    }
    failed: dict[str, Exception] = {}
    times = timing.graph_times(calls, repetitions=3, failed=failed.__setitem__)
    assert times == {"short": pytest.approx([2.0] * 3), "long": pytest.approx([30.0] * 3)}
    assert isinstance(failed["fails"], torch.OutOfMemoryError)
    assert device.stream is STREAM


def test_a_capture_that_cuda_gives_up_leaves_torch_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On the stream of before, with the capture's memory given back, and by its first error."""
    device = StandIn()
    device.install(monkeypatch)
    device.invalidates = True
    calls = {"long": [device.call("long")], "fails": [device.call("fails", fails_at=3)]}
    failed: dict[str, Exception] = {}
    times = timing.graph_times(calls, repetitions=1, failed=failed.__setitem__)
    assert list(times) == ["long"]
    assert isinstance(failed["fails"], torch.OutOfMemoryError)
    assert device.stream is STREAM
    assert device.ended == [(0, POOL)]


def test_a_replay_may_fail_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its samples so far are no times."""
    device = StandIn()
    device.install(monkeypatch)
    device.breaks_at_replay = "fails"
    calls = {name: [device.call(name)] for name in ("fails", "long")}
    failed: list[str] = []
    times = timing.graph_times(calls, repetitions=2, failed=lambda name, _: failed.append(name))
    assert (list(times), failed) == (["long"], ["fails"])


def test_a_gpus_time_is_that_in_a_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the host's clock where there is none."""
    device = StandIn()
    device.install(monkeypatch)
    calls = {"long": [device.call("long")]}
    assert timing.times(calls, torch.device("cuda"), repetitions=2) == {
        "long": pytest.approx([30.0] * 2)
    }
    replayed = len(device.replayed)
    assert len(timing.times(calls, torch.device("cpu"), repetitions=3)["long"]) == 3
    assert len(device.replayed) == replayed


@pytest.mark.parametrize("kept", [(), (SHARE,), (BANDWIDTH, SHARE)])
def test_what_follows_from_a_time_in_a_graph(tmp_path: Path, kept: tuple[str, ...]) -> None:
    """Bytes over time, and their share of the roof; of an eager time nothing follows."""
    results = Results(torch.device("cpu"), tmp_path, rehearsal=True)
    case = decode_case(Workload.UNIFORM, TINY[0], 4, 16)
    roofs = Roofs(memory=2e12, products=1.0, launch=1.0)
    report = Report(Trial(results, "q", case), roofs, 1_000_000, kept=kept)
    report.add(timing.IN_A_GRAPH, {"way": [2.0, 1.0, 4.0]})
    report.add(timing.EAGER, {"way": [3.0]})
    found = {row.metric: (row.p50, row.unit) for row in results.rows["q"]}
    assert found.pop(timing.IN_A_GRAPH) == (2.0, "us")
    assert found.pop(timing.EAGER) == (3.0, "us")
    follows = {BANDWIDTH: (500.0, "GB/s"), SHARE: (25.0, "%")}
    assert found == {metric: follows[metric] for metric in kept}


def test_without_a_listener_a_failure_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever times one way alone handles it itself."""
    device = StandIn()
    device.install(monkeypatch)
    with pytest.raises(torch.OutOfMemoryError):
        timing.graph_times({"fails": [device.call("fails", fails_at=1)]}, repetitions=1)
    device.calls = 0
    calls = {"fails": [device.call("fails", fails_at=1)]}
    with pytest.raises(torch.OutOfMemoryError):
        timing.eager_times(calls, torch.device("cpu"), repetitions=1)


def test_an_eager_failure_frees_its_memory_before_the_next_call() -> None:
    """What the frames of its error hold goes while it is still being handled."""

    class Large:
        """Stands for operands."""

    class Holder:
        def __init__(self) -> None:
            self.large = Large()

        def __call__(self) -> None:
            operand = self.large
            raise torch.OutOfMemoryError(f"no room for {type(operand).__name__}")

    holder = Holder()
    held = weakref.ref(holder.large)
    calls: dict[str, list[Callable[[], None]]] = {"fails": [holder], "long": []}
    alive: list[bool] = []
    calls["long"].append(lambda: alive.append(held() is not None))
    del holder

    def failed(name: str, error: Exception) -> None:
        del calls[name]
        survive(name, error, torch.device("cpu"))
        assert held() is None

    times = timing.eager_times(calls, torch.device("cpu"), repetitions=3, at_once=1, failed=failed)
    assert list(times) == ["long"]
    assert alive[-2:] == [False, False]


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
