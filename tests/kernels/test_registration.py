"""Launches of ours go to the GPU that their tensors are on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from aril.kernels.registration import _on_its_device
from tests.support.fake_gpu import fake_gpu

if TYPE_CHECKING:
    from torch import Tensor


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is there")
@pytest.mark.parametrize(("device", "expected"), [("cuda:0", 0), ("cuda:1", 1), ("cpu", 0)])
def test_a_launch_is_on_its_tensors_gpu(device: str, expected: int) -> None:
    """Triton takes the thread's current one, which is another's afterwards as it was before."""
    with fake_gpu() as gpu:
        seen = []

        def launch(first: Tensor, second: int, *, third: int) -> None:
            seen.append((gpu.current, first.device, second, third))

        tensor = torch.ones(1, device=device)
        _on_its_device(launch)(tensor, 2, third=3)
        assert seen == [(expected, tensor.device, 2, 3)]
        assert gpu.current == 0
