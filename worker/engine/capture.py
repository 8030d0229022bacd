"""Capturing a CUDA graph, so that torch is as it was where that fails."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

_broken: list[torch.cuda.CUDAGraph] = []


@contextmanager
def capturing(
    graph: torch.cuda.CUDAGraph, *, pool: Any, stream: torch.cuda.Stream | None = None
) -> Iterator[None]:
    """Record into a graph what is launched meanwhile, in memory of a pool: a handle of torch's.

    `stream` is where it is launched, by default torch's own for captures, which belongs to the
    device that was the current one at the first capture.

    A call that may not be captured makes CUDA end the capture with an error, and torch 2.11 then
    stays on the capture's stream and holds the capture's memory. The graph itself has to live on:
    the allocators of pinned memory go on asking it whether a stream is its own.
    """
    before = torch.cuda.current_stream()
    cause: BaseException | None = None
    try:
        with torch.cuda.graph(graph, pool=pool, stream=stream):
            try:
                yield
            except BaseException as error:
                cause = error
                raise
    except BaseException as error:  # noqa: BLE001 - raised again below
        _broken.append(graph)
        torch.cuda.graph.default_capture_stream = None
        torch.cuda.set_stream(before)
        with suppress(RuntimeError):  # where the capture did end, that is done already
            torch._C._cuda_endAllocateToPool(before.device_index, pool)  # noqa: SLF001 - no other way
            torch._C._cuda_releasePool(before.device_index, pool)  # noqa: SLF001 - same
        raise cause or error from None  # not that the capture has ended, but why
