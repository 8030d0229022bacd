"""Calls that are written down: run in their order, each task once, by whichever threads come."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from numba import carray

from aril.kernels.native import NativeProgram, openmp
from aril.kernels.native import program as module
from aril.kernels.native.kernel import Kernel, record
from aril.kernels.native.scalars import elements, floats, take, untyped
from aril.kernels.program import HERE, settle, writing_down

if TYPE_CHECKING:
    from collections.abc import Iterator

STEP = record("out", "x", "added", real=("added",))
SUM = record("out", "x", "count")


def _step(pointer: Any) -> None:
    o = carray(untyped(pointer), (1,), STEP)[0]
    out, x = elements(o.out, pointer), elements(o.x, pointer)
    while True:
        task = take(pointer)
        if task >= o.tasks:
            return
        out[task] = x[task] * np.float32(0.125) + np.float32(o.added)


def _sum(pointer: Any) -> None:
    """Add all numbers of x to each of out: wrong where one of them is not yet there."""
    o = carray(untyped(pointer), (1,), SUM)[0]
    out, x = floats(o.out), floats(o.x)
    while True:
        task = take(pointer)
        if task >= o.tasks:
            return
        total = np.float32(0)
        for i in range(o.count):
            total += x[i]
        out[task] = total


ADD, TOTAL = Kernel(_step, STEP), Kernel(_sum, SUM)
WORK = 1_000_000  # enough to wake the others


@pytest.fixture(params=[1, 2, 5])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """Fewer, as many, and more than there are cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def step(out: torch.Tensor, x: torch.Tensor, added: float) -> None:
    """Write out = x / 8 + added, a task a number."""
    ADD(torch.float32, len(x), WORK, out.data_ptr(), x.data_ptr(), added)


@pytest.mark.usefixtures("threads")
def test_each_call_sees_all_that_came_before() -> None:
    """In turns a number a task, and a sum over all of them in each task."""
    x, y, program = torch.zeros(8), torch.zeros(8), NativeProgram()
    with writing_down(program):
        for turn in range(3_000):  # more than one program takes
            step(x, y, turn % 5)
            TOTAL(torch.float32, 8, WORK, y.data_ptr(), x.data_ptr(), 8)
    program.run()
    assert y.tolist() == [8.0 * 2 * 3_000] * 8


@pytest.mark.usefixtures("threads")
def test_nothing_runs_before_it_is_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """And then once; without the function that gives way, too."""
    monkeypatch.setattr(openmp, "give_way", 0)
    out, program = torch.zeros(5), NativeProgram()
    with writing_down(program):
        step(out, out, 1.0)
        assert not out.any()
        with writing_down(None):
            step(out, out, 4.0)
        assert out.tolist() == [4.0] * 5
        settle()
        assert out.tolist() == [1.5] * 5
        settle()
    program.run()
    assert out.tolist() == [1.5] * 5


def test_what_was_forgotten_is_not_run() -> None:
    """A step that failed leaves calls behind, whose memory is gone."""
    out, program = torch.zeros(5), NativeProgram()

    def fail() -> None:
        with writing_down(program):
            step(out, out, 1.0)
            raise ValueError("in the midst")

    with pytest.raises(ValueError, match="in the midst"):
        fail()
    assert HERE.program is None
    program.forget()
    program.run()
    assert not out.any()


def test_a_full_program_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither calls nor operands go beyond their memory, and none is lost."""
    monkeypatch.setattr(module, "_CALLS", 7)
    out, program = torch.zeros(3), NativeProgram()
    with writing_down(program):
        for _ in range(20):
            step(out, out, 1.0)
    assert out[0] > 1
    program.run()
    assert out.tolist() == pytest.approx([8 / 7] * 3)


def test_threads_write_their_own() -> None:
    """What one writes down does not take another one's calls."""
    out, program = torch.zeros(5), NativeProgram()
    with writing_down(program):
        other = threading.Thread(target=step, args=(out, out, 2.0))
        other.start()
        other.join()
    assert out.tolist() == [2.0] * 5


def test_a_passage_is_written_again_over_other_memory() -> None:
    """With other addresses in its words, as often as one likes; not once it has been run."""
    sources, results, program = torch.arange(12.0).view(4, 3), torch.zeros(4, 3), NativeProgram()
    between = torch.zeros(3)
    with writing_down(program):
        step(between, between, 5.0)  # what came before is no part of it
        mark = program.mark()
        assert program.since(mark) is None
        step(between, sources[0], 1.0)
        step(results[0], between, 0.0)
        passage = program.since(mark)
    assert passage is not None
    for row in range(1, 4):
        words = passage.words.copy()
        for old, new in ((sources[0], sources[row]), (results[0], results[row])):
            words[words == old.data_ptr()] = new.data_ptr()
        program.append(passage, words)
    program.run()
    assert torch.equal(results, (sources / 8 + 1) / 8)
    assert program.since(mark) is None
