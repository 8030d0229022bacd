"""Times calls: in a CUDA graph, where only kernels count, and eagerly, where launches count too.

Many sets of operands are called in turn, more of them than the L2 cache holds, and the repetitions
of all providers are interleaved, so that a drift of the clock meets all of them alike.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

import torch

from aril.worker.engine.capture import capturing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    # Who failed, and what it raised; takes it out of the calls, so that its memory can go.
    Failed = Callable[[str, Exception], None]

L2_TIMES = 2.5
IN_A_GRAPH = "time in a graph"
EAGER = "time, eager"
CALLS_A_REPLAY = 64  # so that the graph's own start is shared by many calls
SECONDS_A_REPLAY = 0.02
MOST_SETS = 400


def sets_needed(bytes_a_call: int, device: torch.device) -> int:
    """How many sets of operands make a pool that the L2 cache cannot hold."""
    if device.type != "cuda":
        return 1
    cache = torch.cuda.get_device_properties(device).L2_cache_size
    return max(2, min(MOST_SETS, int(L2_TIMES * cache / max(1, bytes_a_call)) + 1))


def raise_it(_: str, error: Exception) -> None:
    """End the timing with who fails."""
    raise error


def graph_times(
    calls: Mapping[str, Sequence[Callable[[], None]]],
    *,
    repetitions: int,
    failed: Failed = raise_it,
) -> dict[str, list[float]]:
    """Microseconds a call, for each provider, of graphs that go through its whole pool.

    Who raises, in warm-up, capture or replay, is given to `failed` and has no times; the others go
    on.
    """
    graphs: dict[str, tuple[torch.cuda.CUDAGraph, int]] = {}
    for name in tuple(calls):
        try:
            graphs[name] = _captured(calls[name])
        except Exception as error:  # noqa: BLE001 - whatever a provider raises
            failed(name, error)
    times: dict[str, list[float]] = {name: [] for name in graphs}
    for repetition in range(repetitions + 2):
        for name in tuple(graphs):
            try:
                sample = _replayed(*graphs[name])
            except Exception as error:  # noqa: BLE001 - same
                del graphs[name], times[name]
                failed(name, error)
                continue
            if repetition >= 2:  # the first two warm the clock up
                times[name].append(sample)
    return times


def _captured(pool: Sequence[Callable[[], None]]) -> tuple[torch.cuda.CUDAGraph, int]:
    """Record rounds through a pool; return the graph and how many calls it makes."""
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
    with capturing(graph, pool=torch.cuda.graph_pool_handle()):
        for _ in range(rounds):
            for call in pool:
                call()
    return graph, rounds * len(pool)


def _replayed(graph: torch.cuda.CUDAGraph, count: int) -> float:
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    graph.replay()
    stop.record()
    stop.synchronize()
    return start.elapsed_time(stop) * 1e3 / count


def eager_times(
    calls: Mapping[str, Sequence[Callable[[], None]]],
    device: torch.device,
    *,
    repetitions: int,
    at_once: int = 20,
    failed: Failed = raise_it,
) -> dict[str, list[float]]:
    """Microseconds a call by the host's clock, launches included, `at_once` calls a repetition.

    The order is drawn anew for each repetition: on a CPU who runs after whom is worth some
    percent, by what is left in its caches. `failed` is as in `graph_times`.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    position = dict.fromkeys(calls, 0)
    order, shuffle = list(calls), random.Random(0).shuffle
    for _ in range(repetitions):
        shuffle(order)
        for name in tuple(order):
            try:
                sample = _eager(calls[name], position[name], device, at_once)
            except Exception as error:  # noqa: BLE001 - same
                order.remove(name)
                del times[name]
                failed(name, error)
                continue
            position[name] += at_once
            times[name].append(sample)
    return times


def times(
    calls: Mapping[str, Sequence[Callable[[], None]]],
    device: torch.device,
    *,
    repetitions: int,
    at_once: int = 1,
    failed: Failed = raise_it,
) -> dict[str, list[float]]:
    """Microseconds a call: in a graph on a GPU, else by the host's clock."""
    if device.type == "cuda":
        return graph_times(calls, repetitions=repetitions, failed=failed)
    return eager_times(calls, device, repetitions=repetitions, at_once=at_once, failed=failed)


def quiet(call: Callable[[], object]) -> Callable[[], None]:
    """Make a call of one that returns something."""

    def run() -> None:
        call()

    return run


def _eager(
    pool: Sequence[Callable[[], None]], first: int, device: torch.device, at_once: int
) -> float:
    synchronize(device)
    begin = time.perf_counter()
    for number in range(first, first + at_once):
        pool[number % len(pool)]()
    synchronize(device)
    return (time.perf_counter() - begin) * 1e6 / at_once


def synchronize(device: torch.device) -> None:
    """Wait for a device that works apart from the host."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def launches(call: Callable[[], None]) -> int:
    """Count the kernels, copies and fills that one eager call puts on the GPU.

    The profiler stays attached to the driver and slows what comes after: count when all is timed.
    """
    from torch.profiler import ProfilerActivity, profile  # noqa: PLC0415 - loads slowly

    call()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as recorded:
        call()
        torch.cuda.synchronize()
    return sum(event.device_type.name == "CUDA" for event in recorded.events())
