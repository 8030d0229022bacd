"""Times calls: in a CUDA graph, where only kernels count, and eagerly, where launches count too.

Many sets of operands are called in turn, more of them than the L2 cache holds, and the repetitions
of all providers are interleaved, so that a drift of the clock meets all of them alike.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

L2_TIMES = 2.5
CALLS_A_REPLAY = 64  # so that the graph's own start is shared by many calls
SECONDS_A_REPLAY = 0.02
MOST_SETS = 400


def sets_needed(bytes_a_call: int, device: torch.device) -> int:
    """How many sets of operands make a pool that the L2 cache cannot hold."""
    if device.type != "cuda":
        return 1
    cache = torch.cuda.get_device_properties(device).L2_cache_size
    return max(2, min(MOST_SETS, int(L2_TIMES * cache / max(1, bytes_a_call)) + 1))


def graph_times(
    calls: Mapping[str, Sequence[Callable[[], None]]], *, repetitions: int
) -> dict[str, list[float]]:
    """Microseconds a call, for each provider, of graphs that go through its whole pool."""
    graphs = {}
    for name, pool in calls.items():
        for call in pool:  # compiles, and fills what a provider keeps by address
            call()
        torch.cuda.synchronize()
        begin = time.perf_counter()
        for call in pool:
            call()
        torch.cuda.synchronize()
        most = int(SECONDS_A_REPLAY / (time.perf_counter() - begin))
        rounds = max(1, min(CALLS_A_REPLAY // len(pool), most))
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(rounds):
                for call in pool:
                    call()
        graphs[name] = (graph, rounds * len(pool))
    times: dict[str, list[float]] = {name: [] for name in graphs}
    for repetition in range(repetitions + 2):
        for name, (graph, count) in graphs.items():
            start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            graph.replay()
            stop.record()
            stop.synchronize()
            if repetition >= 2:  # the first two warm the clock up
                times[name].append(start.elapsed_time(stop) * 1e3 / count)
    return times


def eager_times(
    calls: Mapping[str, Sequence[Callable[[], None]]],
    device: torch.device,
    *,
    repetitions: int,
    at_once: int = 20,
) -> dict[str, list[float]]:
    """Microseconds a call by the host's clock, launches included, `at_once` calls a repetition."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    position = dict.fromkeys(calls, 0)
    for _ in range(repetitions):
        for name, pool in calls.items():
            synchronize(device)
            begin = time.perf_counter()
            for _ in range(at_once):
                pool[position[name] % len(pool)]()
                position[name] += 1
            synchronize(device)
            times[name].append((time.perf_counter() - begin) * 1e6 / at_once)
    return times


def synchronize(device: torch.device) -> None:
    """Wait for a device that works apart from the host."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def launches(call: Callable[[], None]) -> int:
    """Count the kernels, copies and fills that one eager call puts on the GPU."""
    from torch.profiler import ProfilerActivity, profile  # noqa: PLC0415 - loads slowly

    call()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as recorded:
        call()
        torch.cuda.synchronize()
    return sum(event.device_type.name == "CUDA" for event in recorded.events())
