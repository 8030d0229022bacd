"""vLLM's and SGLang's LoRA kernels as providers, called as their servers call them.

Each gets the layout and the metadata that it wants; what its server would do once a step is its
`plan`. Sources come from `build/peers` (see `loading`), which no commit contains.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.gpu.loading import LoraBatchInfo, load_vllm
from benchmarks.gpu.providers import Provider

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from types import SimpleNamespace

    from torch import Tensor

    from benchmarks.gpu.problem import Problem


class Peer(Provider):
    """One of another server's."""

    def refuses(self, problem: Problem) -> str | None:
        """Take only half precision operands."""
        return "takes fp16 and bf16" if problem.x.dtype is torch.float32 else None


class Vllm(Peer):
    """Punica's successor in vLLM: shrink with split K and atomics, or fixed partials, expand."""

    def __init__(self, root: Path, *, batch_invariant: bool) -> None:
        self.name = "vLLM batch-invariant" if batch_invariant else "vLLM"
        self._ops = load_vllm(root, batch_invariant=batch_invariant)

    def plan(self, problem: Problem) -> Any:
        """Sort the rows on the device, with its waits for the host."""
        rows = len(problem.row_slots)
        metadata = self._ops.metadata.make(problem.slots, rows, problem.device)
        metadata.prepare_tensors(problem.row_slots.to(problem.device))
        return metadata.meta_args(rows, True)  # noqa: FBT003 - by position, as it is called there

    def bind(self, problem: Problem, plan: Any) -> Callable[[], None]:
        """Fold the scale into B, as its loader does; its pointer tables are kept by address."""
        a = [part.contiguous() for part in problem.a]
        scales = torch.tensor(problem.scales, device=problem.device)[:, None, None]
        b = [(part * scales).to(part.dtype) for part in problem.b]
        shape = (len(a), len(problem.x), problem.max_rank)
        shrunk = torch.empty(shape, dtype=torch.float32, device=problem.device)

        def call() -> None:
            self._ops.shrink(problem.x, a, shrunk, *plan, 1.0)
            self._ops.expand(shrunk, b, problem.y, *plan, 0, True)  # noqa: FBT003 - as there

        return call

    def forget(self) -> None:
        """Drop its two tables."""
        self._ops.utils._LORA_A_PTR_DICT.clear()  # noqa: SLF001 - it has no other way
        self._ops.utils._LORA_B_PTR_DICT.clear()  # noqa: SLF001 - same


class Sglang(Peer):
    """What SGLang's three backends share: slices packed at each adapter's own rank."""

    def __init__(self, ops: SimpleNamespace) -> None:
        self._ops = ops

    def weights(self, problem: Problem) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Stack A, B, ranks and scales; the last slot has rank 0, which stands for no adapter."""
        a = torch.zeros_like(torch.cat(problem.a, 1))
        for slot, rank in enumerate(problem.ranks):
            for i, part in enumerate(problem.a):
                a[slot, i * rank : (i + 1) * rank] = part[slot, :rank]
        b = torch.cat(problem.b, 1)
        if (problem.row_slots < 0).any():
            a, b = (torch.cat([part, torch.zeros_like(part[:1])]) for part in (a, b))
        put = partial(torch.tensor, device=problem.device)
        return (
            a,
            b,
            put([*problem.ranks, 0], dtype=torch.int32),
            put([*problem.scales, 0.0], dtype=torch.float32),
        )

    def segments(self, problem: Problem, longest: int | None) -> LoraBatchInfo:
        """Sort the rows by slot and cut each slot's run in chunks of at most `longest`."""
        slots = torch.where(problem.row_slots < 0, problem.slots, problem.row_slots)
        order = torch.argsort(slots, stable=True)
        starts, owners = [0], []
        for slot, size in zip(*torch.unique(slots, return_counts=True), strict=True):
            left = int(size)
            while left:
                taken = left if longest is None else min(left, longest)
                starts.append(starts[-1] + taken)
                owners.append(int(slot))
                left -= taken
        lengths = [stop - start for start, stop in pairwise(starts)]
        put = partial(torch.tensor, dtype=torch.int32, device=problem.device)
        return LoraBatchInfo(
            use_cuda_graph=False,
            bs=len(owners),
            num_segments=len(owners),
            seg_indptr=put(starts),
            weight_indices=put(owners),
            lora_ranks=put([*problem.ranks, 0]),
            scalings=torch.tensor([*problem.scales, 0.0], device=problem.device),
            max_len=longest or max(lengths),
            seg_lens=put(lengths),
            permutation=order.to(torch.int32).to(problem.device),
        )


class SglangTriton(Sglang):
    """SGLang's backend `triton`: a grid as tall as the longest segment."""

    name = "SGLang triton"

    def plan(self, problem: Problem) -> LoraBatchInfo:
        """Merge the rows of each adapter, as it does for decodes."""
        return self.segments(problem, None)

    def bind(self, problem: Problem, plan: LoraBatchInfo) -> Callable[[], None]:
        """Choose its kernel for one slice or for several."""
        a, b, _, _ = self.weights(problem)
        slices = len(problem.widths)
        offsets = slice_offsets(problem.widths, problem.device)

        def call() -> None:
            shrunk = self._ops.sgemm_a(problem.x, a, plan, slices)
            if slices == 1:
                self._ops.sgemm_b(shrunk, b, plan, problem.y)
            else:
                self._ops.stacked_b(
                    shrunk, b, plan, offsets, max(problem.widths), problem.y, slices
                )

        return call


class SglangChunked(Sglang):
    """SGLang's default backend `csgmv`: chunks of one adapter's rows.

    Decodes get the server's default limit of 16 rows a chunk, which is the best for them; prefills
    get its larger chunks, as if the limit had been raised.
    """

    name = "SGLang csgmv"

    def plan(self, problem: Problem) -> LoraBatchInfo:
        """Choose the chunk by the batch, as its backend does."""
        rows = len(problem.row_slots)
        if problem.case.decode or rows < 64:
            return self.segments(problem, 16)
        return self.segments(problem, 128 if rows >= 256 else 32)

    def bind(self, problem: Problem, plan: LoraBatchInfo) -> Callable[[], None]:
        """Keep the slices' offsets on both sides, which lets it launch no idle program."""
        a, b, _, _ = self.weights(problem)
        slices = len(problem.widths)
        offsets = slice_offsets(problem.widths, problem.device)
        on_host = offsets.cpu()

        def call() -> None:
            shrunk = self._ops.chunked_a(problem.x, a, plan, slices)
            self._ops.chunked_b(
                shrunk, b, plan, offsets, max(problem.widths), problem.y, slice_offsets_cpu=on_host
            )

        return call


def slice_offsets(widths: Sequence[int], device: torch.device) -> Tensor:
    """Return where each slice begins and the last one ends, int32 on the device."""
    bounds = [0]
    for width in widths:
        bounds.append(bounds[-1] + width)
    return torch.tensor(bounds, dtype=torch.int32, device=device)
