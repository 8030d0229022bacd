"""Count what batches lose or answer twice when gateways, workers and clients are killed under them.

    python -m benchmarks.batch_kills    # 10,000 lines, some ten minutes; writes batch_kills.csv

Two gateways that share a folder, two workers whose engine has no model and steps each 20 ms, a real
Kafka. Half of the lines are four batches of /v1/batches, half two files of `aril batch run`. A
gateway, a worker and a client are killed (kill -9) and started again in turn, one each 0.5 to 2
seconds, until all is answered. Then each line is looked for in what was brought, and each job in
the reply log. It fails if a line has no answer, or two, or one that is not whole.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import sys
import tempfile
from pathlib import Path
from typing import Final

from benchmarks.record import Row, keep, show
from tests.support.batch_kills import BATCHES, CLIENTS, TOKENS, Outcome, kill_and_answer
from tests.support.brokers import running_kafka

QUESTION: Final = "batch_kills"


def rows_of(outcome: Outcome, seed: int) -> list[Row]:
    """Make the CSV's rows."""
    config = (
        f"2 gateways, 2 workers, {BATCHES} batches, {CLIENTS} aril batch run,"
        f" answers of {TOKENS} tokens, seed {seed}"
    )
    row = functools.partial(
        Row.of,
        question=QUESTION,
        provider="kill -9 under batches",
        x=outcome.lines,
        config=config,
    )
    counted = {
        "gateways killed": outcome.killed["gateways"],
        "workers killed": outcome.killed["workers"],
        "clients killed": outcome.killed["clients"],
        "lines answered": outcome.answered,
        "lines without an answer": outcome.lost,
        "lines answered twice": outcome.twice,
        "answers that are wrong": len(outcome.wrong),
        "jobs under other ids": outcome.asked_again,
        "ends in the log": outcome.ends,
    }
    rows = [row([number], metric=metric, unit="1") for metric, number in counted.items()]
    return [*rows, row([outcome.seconds], metric="duration", unit="s")]


def main() -> None:
    """Kill, count, and write the CSV."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--dry", action="store_true", help="print the table, write nothing")
    arguments = parser.parse_args()
    with running_kafka() as kafka, tempfile.TemporaryDirectory() as folder:
        answering = kill_and_answer(
            kafka,
            Path(folder),
            lines=arguments.lines,
            seed=arguments.seed,
            tell=functools.partial(print, file=sys.stderr, flush=True),
        )
        outcome = asyncio.run(answering)
    rows = rows_of(outcome, arguments.seed)
    if arguments.dry:
        show(rows)
    if outcome.wrong or outcome.lost or outcome.twice:
        raise SystemExit("\n".join([str(outcome), *outcome.wrong[:20]]))
    if not arguments.dry:
        keep(QUESTION, rows)


if __name__ == "__main__":
    main()
