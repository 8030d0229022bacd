"""See `benchmarks.fleet_real`."""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from dataclasses import fields
from pathlib import Path

from benchmarks.fleet_real import phases
from benchmarks.fleet_real.broker import FleetKafka
from benchmarks.fleet_real.fleet import Fleet
from benchmarks.fleet_real.load import Load
from benchmarks.fleet_real.plan import Plan
from benchmarks.record import RESULTS, Row, show, write
from tests.support.brokers import choice


async def measure(plan: Plan, kafka: FleetKafka) -> list[Row]:
    """Do everything to one fleet."""
    begun, fleet = time.monotonic(), Fleet(plan, kafka)
    async with fleet:
        made = phases.Rows(fleet, "topics")
        made.add("created", "s", time.monotonic() - begun)
        load, rows = Load(fleet), made.all
        async with load.reading():
            for phase in (phases.start, phases.steady, phases.join, phases.restart, phases.deaths):
                found = await phase(fleet, load)
                show(found)
                rows += found
        judged = phases.verdict(fleet, load)
        show(judged)
        print(f"{time.monotonic() - begun:.0f} s; workers warned of: {dict(fleet.troubles())}")
    return rows + judged


def main() -> None:
    """Measure and write the CSV."""
    parser = argparse.ArgumentParser(description="A fleet for real, on one machine.")
    parser.add_argument("--out", type=Path, default=RESULTS / f"{phases.NAMED}.csv")
    for each in fields(Plan):
        flag = f"--{each.name.replace('_', '-')}"
        parser.add_argument(flag, type=type(each.default), default=each.default)
    asked = vars(parser.parse_args())
    if choice().kind != "apache":
        raise SystemExit(f"an Apache Kafka of its own is needed: {choice().why}")
    out: Path = asked.pop("out")
    plan = Plan(**asked)
    with (
        tempfile.TemporaryDirectory(prefix="aril-fleet-", ignore_cleanup_errors=True) as data,
        FleetKafka(Path(data), plan.partitions + plan.tenants) as kafka,
    ):
        write(out.stem, asyncio.run(measure(plan, kafka)), out.parent)


if __name__ == "__main__":
    main()
