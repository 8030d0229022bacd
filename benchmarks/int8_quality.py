"""Measure what weights in eight bits do to a model's probabilities.

    python -m benchmarks.int8_quality    # writes int8_quality.csv

As `benchmarks/half_quality.py` does for bfloat16, against float32 throughout and over the same
text: SmolLM2-135M and each of the demo's adapters with the layers' weights in eight bits, in
float32 and in bfloat16; then the backbone in float32 once without smoothing, and once with the
output module in eight bits as well, which is why that one stays as it is stored.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING
from unittest.mock import patch

import torch

from aril.worker.engine import groups, lora
from benchmarks.half_quality import compare, log_probabilities
from benchmarks.record import keep
from tests.support.int8 import why_not

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.record import Row

QUESTION = "int8_quality"


def measure() -> Iterator[Row]:
    """Compare one way after the other with float32: each holds gigabytes of probabilities."""
    whole, pieces = log_probabilities(torch.float32)

    def against(changed: str, dtype: torch.dtype, *, adapters: bool) -> Iterator[Row]:
        ours, _ = log_probabilities(dtype, "int8", adapters=adapters)
        yield from compare(QUESTION, changed, ours, whole[: len(ours)], pieces)

    yield from against("int8 and float32", torch.float32, adapters=True)
    yield from against("int8 and bfloat16", torch.bfloat16, adapters=True)
    with patch.object(groups, "smoothing_factors", lambda largest, _: torch.ones_like(largest)):
        yield from against("int8 without smoothing", torch.float32, adapters=False)
    with patch.object(lora.AdapterLayers, "in_eight_bits", lambda _layers, _group: True):
        yield from against("int8, output module too", torch.float32, adapters=False)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    with torch.inference_mode(mode=False):
        if (why := why_not()) is None:
            keep(QUESTION, measure())
        else:
            print(why)
