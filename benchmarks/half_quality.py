"""Measure what bfloat16 does to a model's probabilities on a CPU.

    python -m benchmarks.half_quality    # writes half_quality.csv

SmolLM2-135M and each of the demo's adapters, in bfloat16 (adapters' slots in float32) against
float32 throughout, over text that nobody has trained the adapters on: prose of this repository's
docs, 256 tokens a piece. For each token: the KL divergence of the next one's probabilities, and
whether the most likely one is the same; and the perplexity of the text in both types.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from aril.kernels.sgmv import make_plan
from aril.worker.engine.config import EngineConfig
from aril.worker.engine.packed_logits import packed_logits
from aril.worker.engine.probe import install_adapters
from benchmarks.record import Row, keep
from benchmarks.smollm2 import MAX_RANK, NAMED, demo_adapters, load_smollm2

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from aril.worker.engine.config import Weights

QUESTION = "half_quality"
DOCS = Path(__file__).parent.parent / "docs"
TEXTS = ("exactly-once.md", "adapters.md", "operating.md", "benchmarks.md")
PIECES = 3  # of each text
TOKENS = 256
SLOTS = 4
NAMES = ("backbone", *(f"{tenant}/{name}" for tenant, name in NAMED))


def log_probabilities(
    dtype: torch.dtype, weights: Weights = "stored", *, adapters: bool = True
) -> tuple[list[list[Tensor]], list[list[int]]]:
    """Return float32 [TOKENS, vocab] for each of `NAMES` and each piece, and the pieces' ids.

    Without `adapters` for the first of them alone, the backbone.
    """
    backbone = load_smollm2(dtype)
    pieces = []
    for text in TEXTS:
        ids = backbone.tokenizer.encode((DOCS / text).read_text())
        pieces += [ids[at * TOKENS : (at + 1) * TOKENS] for at in range(PIECES)]
    config = EngineConfig(
        max_rows=SLOTS,
        max_step_tokens=TOKENS,
        slots=SLOTS,
        max_rank=MAX_RANK,
        kv_tokens=TOKENS,
        dtype=dtype,
        weights=weights,
    )
    loaded = demo_adapters(backbone) if adapters else []
    layers = install_adapters(backbone, config)
    for slot, adapter in enumerate(loaded):
        layers.load(slot, adapter)
    found: list[list[Tensor]] = []
    for slot in range(-1, len(loaded)):
        plan = make_plan(torch.full((TOKENS,), slot, dtype=torch.int32), slots=SLOTS)
        layers.begin((plan,), (plan,))
        found.append(
            [packed_logits(backbone, [[ids]], "torch")[0].float().log_softmax(-1) for ids in pieces]
        )
    return found, pieces


def measure() -> Iterator[Row]:
    """Compare the types, adapter by adapter."""
    torch.manual_seed(0)
    whole, pieces = log_probabilities(torch.float32)
    half, _ = log_probabilities(torch.bfloat16)
    yield from compare(QUESTION, "bfloat16", half, whole, pieces)


def compare(
    question: str,
    changed: str,
    ours: Sequence[Sequence[Tensor]],
    theirs: Sequence[Sequence[Tensor]],
    pieces: Sequence[Sequence[int]],
) -> Iterator[Row]:
    """Compare what is changed with float32, adapter by adapter; see `log_probabilities`."""
    for name, own_pieces, reference_pieces in zip(NAMES[: len(ours)], ours, theirs, strict=True):
        kl, agree, own, reference = [], [], [], []
        for p, q, ids in zip(reference_pieces, own_pieces, pieces, strict=True):
            kl += (p.exp() * (p - q)).sum(-1).clamp(min=0).tolist()
            agree += (p.argmax(-1) == q.argmax(-1)).float().tolist()
            following = torch.tensor(ids[1:])[:, None]
            own += (-q[:-1].gather(1, following)).flatten().tolist()
            reference += (-p[:-1].gather(1, following)).flatten().tolist()
        means = {
            ("KL to float32, mean", "nat"): sum(kl) / len(kl),
            ("same best token", "1"): sum(agree) / len(agree),
            (f"loss in {changed}", "nat"): sum(own) / len(own),
            ("loss in float32", "nat"): sum(reference) / len(reference),
        }
        samples = {key: [value] for key, value in means.items()}
        samples["KL to float32, a token", "nat"] = kl
        for (metric, unit), values in samples.items():
            yield Row.of(
                values,
                question=question,
                provider=name,
                metric=metric,
                x=len(kl),
                unit=unit,
                config=f"SmolLM2-135M {changed}, {len(pieces)} pieces of {TOKENS} tokens",
            )


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    with torch.inference_mode(mode=False):
        keep(QUESTION, measure())
