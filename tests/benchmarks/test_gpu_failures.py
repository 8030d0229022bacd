"""What is left of a failure: one line, free memory, and whether the device still works."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from aril.kernels.sgmv.cost import H100_SXM
from benchmarks.gpu import attention, sequences
from benchmarks.gpu.failures import DeviceLost, first_line, place, survive
from benchmarks.gpu.results import Results

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.mark.parametrize(("raises", "alive"), [(0, True), (1, True), (2, False)])
def test_a_device_is_asked_twice(
    monkeypatch: pytest.MonkeyPatch, raises: int, *, alive: bool
) -> None:
    """The first call may still report the error that was seen already; one that stays is fatal."""
    left = [RuntimeError("CUDA error")] * raises

    def synchronize(_: object) -> None:
        if left:
            raise left.pop()

    zeros = torch.zeros
    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch, "zeros", lambda count, device: zeros(count))  # noqa: ARG005
    device = torch.device("cuda")
    if alive:
        assert survive("vLLM", ValueError("bad\nshape"), device) == "ValueError: bad"
    else:
        with pytest.raises(DeviceLost, match="with vLLM: ValueError: bad"):
            survive("vLLM", ValueError("bad\nshape"), device)


def test_an_error_is_one_line() -> None:
    """Of a length that a table can take; its name alone where it says nothing."""
    assert first_line(KeyError()) == "KeyError"
    assert first_line(RuntimeError("\n  late\nmore")) == "RuntimeError: late"
    assert len(first_line(RuntimeError("x" * 999))) == 160


def test_attention_is_timed_without_who_fails(tmp_path: Path) -> None:
    """The fourth binding is the one that is timed."""

    class Fails(attention.Sdpa):
        name = "fails"
        bound = 0

        def bind(self, problem: sequences.Problem) -> Callable[[], torch.Tensor]:
            self.bound += 1
            if self.bound == 4:
                raise RuntimeError("no room")
            return super().bind(problem)

    (shape,) = (each for each in sequences.tiny_shapes() if each.name.startswith("Decode"))
    results = Results(torch.device("cpu"), tmp_path, rehearsal=True)
    ways = [Fails(), attention.Sdpa()]
    attention.measure([shape], ways, results, H100_SXM, deadline=float("inf"), repetitions=1)
    told = [(row.provider, row.metric) for row in results.rows[attention.QUESTION]]
    assert [name for name, metric in told if metric == "time, eager"] == ["torch SDPA, contiguous"]
    assert ("fails", "failed: RuntimeError: no room") in told


def test_a_failure_says_where_it_was_raised() -> None:
    """With its last line, where a compiler's first says only a place in a source."""

    def fail() -> None:
        raise ValueError("at 12:8:\n  x = tl.dot(a, b)\nshapes don't fit\n")

    with pytest.raises(ValueError, match="at 12") as caught:
        fail()
    assert place(caught.value).startswith("test_gpu_failures.py:")
    assert place(caught.value).endswith(", shapes don't fit")
    assert place(ValueError("never raised")) == "nowhere"
