"""Attention's table: ours, vLLM's unified kernel, and torch's product on contiguous keys.

python -m benchmarks.gpu --only attention    # writes attention_gpu.csv
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import scaled_dot_product_attention

from benchmarks.gpu.loading import PEERS, load_vllm, loaded
from benchmarks.gpu.problem import TOLERANCE, row_error
from benchmarks.gpu.sequences import make_problem
from benchmarks.gpu.timing import (
    EAGER,
    IN_A_GRAPH,
    eager_times,
    graph_times,
    quiet,
    sets_needed,
)
from benchmarks.gpu.trial import SHARE, Report, measure_each

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from torch import Tensor

    from aril.kernels.sgmv.cost import Roofs
    from benchmarks.gpu.results import Results
    from benchmarks.gpu.sequences import Problem, Shape
    from benchmarks.gpu.trial import Trial

QUESTION = "attention_gpu"
# What vLLM's server passes: splits a decode in 16 while rows are few for the device.
SEGMENTS = 16
SMALLEST_GRID = 128


class Provider(ABC):
    """One way of attending."""

    name: str

    def refuses(self, problem: Problem) -> str | None:  # noqa: ARG002 - most take every problem
        """Say why this problem is not for it; None when it is."""
        return None

    @abstractmethod
    def bind(self, problem: Problem) -> Callable[[], Tensor]:
        """Prepare what a step has ready; the call returns [T, heads, d]."""


class Ours(Provider):
    """`aril.kernels.attention` on Triton, in one of its modes."""

    def __init__(self, *, invariant: bool) -> None:
        self.name = "Aril invariant" if invariant else "Aril fast"
        self._invariant = invariant

    def bind(self, problem: Problem) -> Callable[[], Tensor]:
        """Need nothing more."""
        return lambda: problem.attend(invariant=self._invariant)


class VllmUnified(Provider):
    """vLLM's unified kernel, with the scratch that lets it split decodes, as its server has."""

    name = "vLLM unified"

    def __init__(self, root: Path) -> None:
        self._attend = load_vllm(root).attention

    def bind(self, problem: Problem) -> Callable[[], Tensor]:
        """Allocate what the server keeps."""
        shape = problem.shape
        most = SMALLEST_GRID // shape.kv_heads
        out = torch.empty_like(problem.q)
        sums = torch.empty(most, shape.heads, SEGMENTS, shape.dim, device=out.device)
        top, total = torch.empty(2, most, shape.heads, SEGMENTS, device=out.device)

        def call() -> Tensor:
            self._attend(
                q=problem.q,
                k=problem.k_cache,
                v=problem.v_cache,
                out=out,
                cu_seqlens_q=problem.cu_q,
                max_seqlen_q=max(queries for queries, _ in shape.sequences),
                seqused_k=problem.kv_lens,
                max_seqlen_k=max(keys for _, keys in shape.sequences),
                softmax_scale=problem.scale,
                causal=True,
                window_size=(-1, -1),
                block_table=problem.block_table,
                softcap=0,
                q_descale=None,
                k_descale=None,
                v_descale=None,
                seq_threshold_3D=most,
                num_par_softmax_segments=SEGMENTS,
                softmax_segm_output=sums,
                softmax_segm_max=top,
                softmax_segm_expsum=total,
            )
            return out

        return call


class Sdpa(Provider):
    """torch's attention on keys that were made contiguous beforehand: no paging, equal lengths."""

    name = "torch SDPA, contiguous"

    def refuses(self, problem: Problem) -> str | None:
        """Take batches of one length: whole prompts or single tokens."""
        if len(set(problem.shape.sequences)) > 1:
            return "needs sequences of one length"
        queries, keys = problem.shape.sequences[0]
        return None if queries in {1, keys} else "has no causal mask for a later chunk"

    def bind(self, problem: Problem) -> Callable[[], Tensor]:
        """Gather the pages where no clock runs."""
        sequences = [problem.contiguous(i) for i in range(len(problem.shape.sequences))]
        q, k, v = (torch.stack(part).contiguous() for part in zip(*sequences, strict=True))
        causal = q.shape[2] > 1
        return lambda: (
            scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=True)
            .transpose(1, 2)
            .flatten(0, 1)
        )


def providers(root: Path = PEERS) -> list[Provider]:
    """Ours and torch's, and vLLM's where its source is."""
    peers: list[Provider] = []
    if (root / "vllm").is_dir():
        peers = loaded(VllmUnified.name, lambda: [VllmUnified(root)])
    return [Ours(invariant=False), Ours(invariant=True), *peers, Sdpa()]


def measure(
    shapes: Sequence[Shape],
    ways: Sequence[Provider],
    results: Results,
    roofs: Roofs,
    *,
    deadline: float,
    repetitions: int,
) -> int:
    """Check against fp64, then time; return how many shapes are left at the deadline."""
    one = partial(_measure_shape, ways=ways, roofs=roofs, repetitions=repetitions)
    return measure_each(QUESTION, shapes, one, results, deadline=deadline)


def _measure_shape(
    shape: Shape, trial: Trial, *, ways: Sequence[Provider], roofs: Roofs, repetitions: int
) -> None:
    device = trial.device
    problem = make_problem(shape, device, seed=0)
    print(f"\n{shape.config}; {shape.bytes / 1e6:.1f} MB a call")
    right = [way for way in ways if _is_right(way, problem, trial)]
    sets = sets_needed(shape.bytes, device)
    pool = [make_problem(shape, device, seed=1 + number) for number in range(sets)]
    calls: dict[str, list[Callable[[], None]]] = {}
    for way in right:
        with trial.guard(way.name):
            calls[way.name] = [quiet(way.bind(own)) for own in pool]
    failed = trial.drops(calls)
    report = Report(trial, roofs, shape.bytes, kept=(SHARE,))
    if device.type == "cuda":
        report.add(IN_A_GRAPH, graph_times(calls, repetitions=repetitions, failed=failed))
    report.add(
        EAGER,
        eager_times(calls, device, repetitions=repetitions, at_once=len(pool), failed=failed),
    )


def _is_right(way: Provider, problem: Problem, trial: Trial) -> bool:
    if trial.leaves_out(way.name, way.refuses(problem)):
        return False
    with trial.guard(way.name):
        got = way.bind(problem)().clone()
        again = way.bind(problem)()
        alone = way.bind(problem.alone(len(problem.shape.sequences) - 1))()
        error = row_error(got, problem.exact())
        invariant = torch.equal(alone, got[-len(alone) :])
        trial.note(way.name, "largest error of a row", [error], "1")
        trial.note(way.name, "deterministic", [float(torch.equal(got, again))], "1")
        trial.note(way.name, "row-invariant", [float(invariant)], "1")
        right = error <= TOLERANCE[got.dtype]
        print(f"  {way.name:24} {'right' if right else 'WRONG'}, off by {error:.2g}")
        return right
    return False
