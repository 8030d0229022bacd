"""Fuzz what strangers can send: `python -m tests.fuzz --cases 10000000 --seed 1`.

A run that was stopped goes on when it is started again with the same cases and seed. A case that
failed is repeated by `--target NAME --case NUMBER --seed SEED`, with its traceback.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.fuzz.campaign import Kept, ProcessDiedError, run, split
from tests.fuzz.registry import TARGETS
from tests.fuzz.runner import run_one
from tests.fuzz.summary import write_summary

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print progress, write the summary; 1 if any case failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=1_000_000, help="of all targets together")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--target", action="append", choices=sorted(TARGETS), help="only this one")
    parser.add_argument("--case", type=int, help="repeat one case of one target")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--state", type=Path, default=Path("build/fuzz"), help="what is kept")
    parser.add_argument("--summary", type=Path, help="CSV to write when it is done")
    told = parser.parse_args(arguments)
    if told.case is not None:
        if not told.target or len(told.target) != 1:
            parser.error("--case needs one --target")
        target = TARGETS[told.target[0]]
        print(f"{target.case(told.seed, told.case)!a}")
        print(run_one(target, told.seed, told.case))
        return 0
    counts = split(told.cases, told.target)
    name = "-".join(told.target or ("all",))
    path = told.state / f"{name}-{told.seed}-{told.cases}.json"
    try:
        kept = Kept.load(path, told.seed, told.cases)
        run(kept, counts, processes=told.processes, path=path, tell=_tell)
    except (ProcessDiedError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    for name, tally in kept.tallies.items():
        print(
            f"{name:10} {tally.cases:>9} cases  p99 {tally.quantile_us(0.99):>8.0f} µs"
            f"  slowest {tally.slowest_ns / 1_000:>9.0f} µs (case {tally.slowest})"
            f"  peak {tally.peak_bytes:>9} bytes  failed {tally.failed}"
        )
        for number, what in tally.failures:
            print(f"  --target {name} --case {number} --seed {kept.seed}: {what}")
    if told.summary is not None:
        write_summary(kept, told.summary)
    return 1 if kept.failed else 0


def _tell(kept: Kept) -> None:
    rate = kept.count / max(1e-9, kept.seconds)
    share = 100 * kept.count / kept.cases
    print(
        f"{kept.count} of {kept.cases} ({share:.1f} %), {rate:.0f}/s, failed {kept.failed}",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
