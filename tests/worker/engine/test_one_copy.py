"""Arrays of any of its types come to a device as they are, each where kernels like it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aril.worker.engine.one_copy import one_copy, words_of
from tests.support.fake_gpu import fake_gpu

ARRAYS = st.lists(
    st.tuples(
        st.sampled_from([np.int64, np.float64, np.int32, np.float32]),
        st.sampled_from([(0,), (1,), (5,), (8,), (3, 5), (2, 0), (4, 4)]),
    ),
    max_size=8,
)


def made(kinds: list[tuple[type, tuple[int, ...]]]) -> list[np.ndarray]:
    """Make arrays whose numbers are all others."""
    return [
        (np.arange(np.prod(shape)) + 100 * place).reshape(shape).astype(kind)
        for place, (kind, shape) in enumerate(kinds)
    ]


@settings(max_examples=80)
@given(kinds=ARRAYS, placed=st.booleans())
def test_each_is_itself(kinds: list[tuple[type, tuple[int, ...]]], *, placed: bool) -> None:
    """Types, shapes and numbers; in a block of one's own they follow what is copied there."""
    arrays = made(kinds)
    cpu = torch.device("cpu")
    into = torch.full((words_of(arrays),), -1, dtype=torch.int64) if placed else None
    tensors = one_copy(arrays, cpu, into)
    for array, tensor in zip(arrays, tensors, strict=True):
        assert tensor.numpy().dtype == array.dtype
        assert np.array_equal(tensor.numpy(), array)
    if into is None:
        return
    one_copy([array + 1 for array in arrays], cpu, into)
    for array, tensor in zip(arrays, tensors, strict=True):
        assert np.array_equal(tensor.numpy(), array + 1)
        assert (tensor.data_ptr() - into.data_ptr()) % 16 == 0 or not len(array)


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is there")
def test_a_gpu_is_told_once() -> None:
    """All of them together, out of pinned memory; nothing is read back."""
    arrays = made([(np.int32, (3,)), (np.float64, (2,)), (np.int64, (0,)), (np.float32, (1, 3))])
    with fake_gpu() as gpu:
        tensors = one_copy(arrays, torch.device("cuda"))
        assert (len(gpu.told), gpu.late, gpu.reads) == (1, [], [])
        for array, tensor in zip(arrays, tensors, strict=True):
            assert tensor.is_cuda
            assert np.array_equal(tensor.cpu().numpy(), array)
