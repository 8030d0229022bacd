"""What it costs the host to call an operator that does nothing, by how it is registered.

    python -m benchmarks.operator_call    # writes operator_call.csv

An eager decode step of an 8B model calls 256 of Aril's operators: the two of each group of linears.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

import torch

from aril.kernels.registration import operator
from benchmarks.record import Row, keep
from benchmarks.turns import in_turns, use_one_thread

if TYPE_CHECKING:
    from collections.abc import Callable

QUESTION = "operator_call"
CALLS = 2_000
REPETITIONS = 31


def nothing(y: torch.Tensor, x: torch.Tensor, b: list[torch.Tensor], rank: int) -> None:
    """Take what an operator of ours takes, and leave it alone."""


def microseconds(call: Callable[..., object], *, inference: bool) -> float:
    """Time one run of calls; microseconds a call."""
    y = torch.zeros(3)
    weights = [y]
    with torch.inference_mode(inference):
        begin = time.perf_counter_ns()
        for _ in range(CALLS):
            call(y, y, weights, 1)
        return (time.perf_counter_ns() - begin) / CALLS / 1e3


def main() -> None:
    """Measure in turns, print, write operator_call.csv."""
    use_one_thread("benchmarks.operator_call")
    calls: dict[str, Callable[..., object]] = {
        "torch.library.Library": operator("nothing", mutates=("y",))(nothing),
        "torch.library.custom_op": torch.library.custom_op(
            "aril_benchmark::nothing", nothing, mutates_args=("y",)
        ),
        "function": nothing,
    }
    ways = {
        (name, inference): partial(microseconds, call, inference=inference)
        for name, call in calls.items()
        for inference in (True, False)
    }
    rows = [
        Row.of(
            spent,
            question=QUESTION,
            provider=way,
            metric="time of a call",
            x=4,
            unit="us",
            config=f"inference mode {'on' if inference else 'off'}; four arguments, does nothing",
        )
        for (way, inference), spent in in_turns(ways, REPETITIONS).items()
    ]
    keep(QUESTION, rows)


if __name__ == "__main__":
    main()
