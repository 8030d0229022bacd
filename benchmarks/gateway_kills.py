"""Count what readers lose or see twice when gateways and workers are killed under them.

    python -m benchmarks.gateway_kills    # 200 kills, some half an hour; writes gateway_kills.csv

Two gateways and two workers on a real Kafka; one of the four is killed (kill -9) and started again,
gateways and workers in turn, while four readers ask one answer of 200 tokens after the other. A
reader that is cut off goes on at the other gateway, behind the last event that it was given. Each
answer is compared with the log. It fails if one differs.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import tempfile
from pathlib import Path
from typing import Final

from benchmarks.record import Row, keep
from tests.support.brokers import running_kafka
from tests.support.gateway_kills import READERS, TOKENS, Outcome, kill_and_read

QUESTION: Final = "gateway_kills"


def rows_of(outcome: Outcome, seed: int) -> list[Row]:
    """Make the CSV's rows."""
    config = f"2 gateways, 2 workers, {READERS} readers, answers of {TOKENS} tokens, seed {seed}"
    row = functools.partial(
        Row.of,
        question=QUESTION,
        provider="kill -9 of gateways and workers",
        x=outcome.kills,
        unit="1",
        config=config,
    )
    counted = {
        "gateways killed": outcome.gateways,
        "workers killed": outcome.workers,
        "answers read": outcome.answers,
        "tokens read": outcome.tokens,
        "streams gone on with": outcome.resumed,
        "requests sent again": outcome.repeated,
        "answers that differ": len(outcome.wrong),
    }
    return [row([number], metric=metric) for metric, number in counted.items()]


def main() -> None:
    """Kill, read, count, and write the CSV."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with running_kafka() as kafka, tempfile.TemporaryDirectory() as folder:
        killing = kill_and_read(kafka, Path(folder), kills=arguments.kills, seed=arguments.seed)
        outcome = asyncio.run(killing)
    if outcome.wrong:
        raise SystemExit("\n".join(outcome.wrong))
    keep(QUESTION, rows_of(outcome, arguments.seed))


if __name__ == "__main__":
    main()
