"""The kernels on the device itself, before anything is timed; without a GPU in the interpreter.

Needs nothing but pytest, so that it also runs on a machine which has no more than torch and Triton.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
if DEVICE.type == "cpu":
    os.environ.setdefault("TRITON_INTERPRET", "1")

from aril.kernels.attention import store_kv  # noqa: E402
from aril.kernels.sgmv import GroupShape, LoraPair, StackedWeights, make_plan  # noqa: E402
from benchmarks.gpu import attention, checks, problem, providers, sequences, workloads  # noqa: E402
from benchmarks.gpu.timing import graph_times  # noqa: E402

if TYPE_CHECKING:
    from benchmarks.gpu.workloads import Case

ON_GPU = DEVICE.type == "cuda"
# The interpreter's own bf16 arithmetic is wrong; the kernels widen it there, torch's checks don't.
DTYPES = ["float16", "bfloat16"]
MODES = ["fast", "invariant"]
QKV = workloads.LLAMA_8B[0] if ON_GPU else workloads.TINY[0]
gpu_only = pytest.mark.skipif(not ON_GPU, reason="needs a CUDA device")


def cases(dtype: str) -> list[Case]:
    """List decodes of all workloads, mixed ranks, a prefill beside decodes and backbone rows."""
    rows = 64 if ON_GPU else 5
    tall = [300, 77] if ON_GPU else [18, 3]
    return [
        *(workloads.decode_case(each, QKV, rows, 16, dtype=dtype) for each in workloads.Workload),
        workloads.mixed_rank_case(workloads.Workload.UNIFORM, QKV, rows, dtype=dtype),
        workloads.prefill_case(QKV, tall, decodes=4, backbone=2, rank=64, dtype=dtype),
    ]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("number", range(6) if ON_GPU else (4, 5))
def test_sgmv_is_right(number: int, dtype: str, mode: str) -> None:
    """Within rounding of fp64, exact on whole numbers, rows without adapter untouched."""
    case = cases(dtype)[number]
    drawn = problem.make_problem(case, DEVICE)
    verdict = checks.examine(providers.Sgmv(mode), drawn, runs=2, alone=3 if ON_GPU else 1)
    assert verdict.wrong is None
    assert verdict.deterministic
    assert verdict.row_invariant or mode == "fast"


@pytest.mark.parametrize("rank", [1, 7, 16, 48, 128, 256])
def test_ranks_are_exact_on_whole_numbers(rank: int) -> None:
    """Ranks that fill no tile, one and several: a miscompiled product shows as a whole number."""
    case = workloads.decode_case(workloads.Workload.UNIFORM, QKV, 9, rank, dtype="float16")
    drawn = problem.make_problem(case, DEVICE, integers=True)
    assert torch.equal(checks.result(providers.Sgmv("fast"), drawn).double(), drawn.exact())


def test_a_graph_replay_serves_more_adapters_than_its_capture() -> None:
    """A static plan and slots loaded in place: other rows, other ranks, the same launches."""
    shape = GroupShape(64, (48, 16), max_rank=16)
    weights = StackedWeights(shape, 4, device=DEVICE, dtype=torch.float16, backend="triton")
    generator = torch.Generator().manual_seed(0)

    def pair(rank: int, width: int) -> LoraPair:
        a, b = torch.randint(-1, 2, (rank, 64), generator=generator), torch.ones(width, rank)
        return LoraPair(a.half(), b.half(), 1.0)

    pairs = [[pair(rank, 48), pair(rank, 16)] for rank in (2, 16, 5, 1)]
    weights.load(0, pairs[0])
    x = torch.randint(-1, 2, (9, 64), generator=generator).half().to(DEVICE)
    y = torch.zeros(9, 64, dtype=torch.float16, device=DEVICE)
    plan = make_plan(torch.zeros(9, dtype=torch.int32), slots=4, device=DEVICE, static=True)

    def step() -> None:
        weights.add_(y, x, plan)

    step()
    replay = step
    if ON_GPU:
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step()
        replay = graph.replay
    for slot in (1, 2, 3):
        weights.load(slot, pairs[slot])
    row_slots = [3, 2, 1, 0, -1, 1, 2, 3, 3]
    plan.update_(torch.tensor(row_slots, dtype=torch.int32))
    y.zero_()
    replay()
    expected = torch.zeros(9, 64, dtype=torch.float64)
    for row, slot in enumerate(row_slots):
        if slot >= 0:
            parts = [x[row].cpu().double() @ p.a.double().T @ p.b.double().T for p in pairs[slot]]
            expected[row] = torch.cat(parts)
    assert torch.equal(y.cpu().double(), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("number", range(4 if ON_GPU else 2))
@pytest.mark.parametrize("invariant", [False, True])
def test_attention_is_right(number: int, dtype: str, *, invariant: bool) -> None:
    """Decodes, prefills, chunks and mixes against fp64; a sequence alone has the same bits."""
    tiny = list(sequences.tiny_shapes())
    real = [
        sequences.Shape("decode", ((1, 700), (1, 17), (1, 1300))),
        sequences.Shape("prefill", ((300, 300), (33, 33))),
        sequences.Shape("chunk", ((64, 900),), heads=64),
        sequences.Shape("mixed", ((1, 513), (100, 400), (1, 1))),
    ]
    shape = replace((real if ON_GPU else tiny)[number], dtype=dtype)
    drawn = sequences.make_problem(shape, DEVICE, seed=0)
    way = attention.Ours(invariant=invariant)
    got = way.bind(drawn)().double()
    exact = drawn.exact()
    off = (got - exact).flatten(1).norm(dim=1) / exact.flatten(1).norm(dim=1)
    assert float(off.max()) <= problem.TOLERANCE[drawn.q.dtype]
    if invariant:
        alone = way.bind(drawn.alone(len(shape.sequences) - 1))().double()
        assert torch.equal(alone, got[-len(alone) :])


def test_keys_and_values_land_in_their_slots() -> None:
    """A store writes the mapped rows, and only those."""
    k, v = (torch.randn(3, 2, 16, device=DEVICE, dtype=torch.float16) for _ in range(2))
    k_cache, v_cache = (
        torch.full((4, 4, 2, 16), 7.0, device=DEVICE, dtype=torch.float16) for _ in range(2)
    )
    mapping = torch.tensor([5, -1, 14], device=DEVICE)
    store_kv(k, v, k_cache, v_cache, mapping, backend="triton")
    for rows, cache in ((k, k_cache), (v, v_cache)):
        flat = cache.view(16, 2, 16)
        assert torch.equal(flat[[5, 14]], rows[[0, 2]])
        flat[[5, 14]] = 7.0
        assert bool((flat == 7.0).all())


@gpu_only
def test_a_graph_is_timed_call_by_call() -> None:
    """A kernel of twice the bytes takes longer: the clock sees kernels, not only launches."""
    small, large = (torch.zeros(1 << power, device=DEVICE) for power in (24, 26))
    calls = {"small": [lambda: _drop(small.add_(1))], "large": [lambda: _drop(large.add_(1))]}
    times = graph_times(calls, repetitions=5)
    assert min(times["large"]) > max(times["small"])


def _drop(_: object) -> None:
    """Make a call of one that returns something."""
