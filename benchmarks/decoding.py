"""Rows of one engine, greedily decoded and timed step by step."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from aril.schemas import Sampling
from aril.worker.engine.request import GenerationRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aril.worker.adapters import AdapterWeights
    from aril.worker.engine.engine import Engine


class Decoded(NamedTuple):
    """Seconds: of everything, of the steps with prompts in them, of each step that only decodes."""

    whole: float
    prefill: float
    steps: list[float]


def decode(
    engine: Engine,
    adapters: Sequence[AdapterWeights | None],
    prompts: Sequence[tuple[int, ...]],
    tokens: int,
) -> Decoded:
    """Answer a prompt with each adapter, None is the backbone, by so many tokens.

    Raises RuntimeError where a row fails, or where all never decode in one step.
    """
    for key, (adapter, prompt) in enumerate(zip(adapters, prompts, strict=True)):
        sampling = Sampling(max_tokens=tokens, temperature=0.0, ignore_eos=True)
        engine.submit(
            GenerationRequest(
                key=key, prompt_ids=prompt, sampling=sampling, seed=0, adapter=adapter
            )
        )
    prefill, steps = 0.0, []
    begun = time.perf_counter()
    while engine.has_work:
        before = time.perf_counter()
        outputs = engine.step()
        spent = time.perf_counter() - before
        for output in outputs:
            if output.error is not None:
                raise RuntimeError(f"row {output.key} failed: {output.error}")
        if len(outputs) == engine.stats().tokens == len(adapters):
            steps.append(spent)
        else:
            prefill += spent
    if not steps and tokens > 1:
        raise RuntimeError("some rows were done before the last ones began: step_stretch")
    return Decoded(time.perf_counter() - begun, prefill, steps)
