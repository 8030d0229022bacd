"""How many tokens of prompts a step computes beside rows that decode.

A step lasts as long as its tokens take, and every row that decodes in it waits for its end. So
beside decodes prompts are taken in chunks, as in Sarathi-Serve (Agrawal and others, 2024): of so
many tokens that the step lasts a few times as long as one in which all jobs at hand decode
(decision 071). Where so much waits that it would not be through in `SPREAD_STEPS` steps, chunks
grow with it: a queue that grows would have no end, and rows that wait for their first token bring
nothing meanwhile. Without decodes a step takes all that fits.

What is taken follows from what runs and waits, never from a clock.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Final

from aril.worker.engine.block_products import ROW_COUNTS

# A step of n tokens lasts as long as the arithmetic of n + STEP_ROWS tokens of prompts. By CPU time
# of one thread 15 to 22 in float32 and 14 to 22 in bfloat16, for 1 to 32 rows that decode, with
# adapters or without (SmolLM2-135M, AMD EPYC, 29 November 2026). Taken too small, steps are short.
STEP_ROWS: Final = 16

SPREAD_STEPS: Final = 24
"""Steps over which what waits is spread where there is much of it."""

LEAST: Final = 8
"""Tokens that a step takes of prompts in any case."""

UNBOUND: Final = 1_000.0
"""A stretch with which nothing but the limit of a step's tokens holds."""


def prompt_tokens(decodes: int, prompts: int, waiting: int, stretch: float) -> int:
    """Return how many tokens of prompts a step may take beside so many decodes, at least LEAST.

    `prompts` is how many prompts could be computed now, `waiting` their tokens together, `stretch`
    how many times as long as one decode of all these rows the step may last, 1 or more. With the
    decodes the tokens make up one of ROW_COUNTS, where LEAST and the largest of them let them.
    """
    paced = stretch * (decodes + prompts + STEP_ROWS) - STEP_ROWS
    most = max(paced, decodes + waiting / SPREAD_STEPS)
    if most < ROW_COUNTS[-1]:
        most = ROW_COUNTS[bisect_right(ROW_COUNTS, most) - 1]
    return max(LEAST, int(most) - decodes)
