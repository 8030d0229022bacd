"""The device that is none shows what a GPU would not do, or would wait for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

if TYPE_CHECKING:
    from tests.support.fake_gpu import FakeGpu


@pytest.mark.usefixtures("gpu")
def test_a_capture_keeps_what_python_knew() -> None:
    """What the tests above go by: tensors are read again, numbers and places are not."""
    place, told = torch.zeros(3, device="cuda"), torch.zeros(3, device="cuda")
    number = 2.0
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        made = place * number
        told.copy_(made + 1)
    place.fill_(5.0)
    number = 7.0
    graph.replay()
    assert told.tolist() == [11.0] * 3
    assert made.tolist() == [10.0] * 3
    for waits in (place.tolist, lambda: place.copy_(torch.ones(3))):
        with pytest.raises(RuntimeError, match="capturing"), torch.cuda.graph(graph):
            waits()


def test_the_device_shows_what_would_cross(gpu: FakeGpu) -> None:
    """What the test above goes by: copies out of any memory, waits, and operands on two sides."""
    there = torch.arange(4.0, device="cuda")
    gpu.reset()
    here = torch.ones(3)
    there[:3].copy_(here)
    here.to("cuda")
    there[[1, 2]]
    assert (len(gpu.told), len(gpu.late)) == (3, 3)
    here.pin_memory().to("cuda", non_blocking=True)
    assert (len(gpu.told), len(gpu.late)) == (4, 3)
    assert not gpu.reads
    for read in (
        there.tolist,
        there[0].item,
        lambda: bool(there[1] > 0),
        there.cpu,
        there.nonzero,
        lambda: there[there > 1],
    ):
        read()
    assert len(gpu.reads) == 6
    with pytest.raises(RuntimeError, match="on the host and on a GPU"):
        there[:3] + here
    assert there.tolist() == [1, 1, 1, 3]


def test_what_is_fetched_is_there_when_its_event_was_waited_for(gpu: FakeGpu) -> None:
    """Not before, and what the device is asked behind the event changes none of it."""
    there = torch.arange(3.0, device="cuda")
    here = torch.empty(3, pin_memory=True)
    gpu.reset()
    here.copy_(there, non_blocking=True)
    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream())
    there.fill_(7.0)
    assert here.isnan().all()
    assert (gpu.fetched, gpu.reads) == (["[3]"], [])
    event.synchronize()
    assert here.tolist() == [0, 1, 2]
    assert gpu.reads == ["event"]
    here.copy_(there)
    torch.empty(3).copy_(there, non_blocking=True)
    assert len(gpu.reads) == 3
