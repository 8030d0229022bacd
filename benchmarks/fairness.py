"""Measure what one tenant's flood does to the others, and whether floods share evenly.

    python -m benchmarks.fairness [--older CHECKOUT]    # writes fairness.csv

A real Kafka and one worker whose engine takes 20 ms a step, whatever is in it. A tenant that asks
now and then: its time to a first token while nobody else is there, and while another's flood waits,
of jobs that take 2 s each, of jobs that take 8 s, and of prompts that do not all fit into the
look-ahead. Then floods of four tenants that are unlike: tokens of each in the same time, and Jain's
index of those (1: the same; Jain, Chiu, Hawe 1984). Beside it an older checkout, if one is given.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import random
import statistics
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from aril import JobTimeout, TokensEvent
from aril.schemas import Job, Sampling, TokensRecord, decode_reply, encode_request
from benchmarks.record import Row, ratios
from benchmarks.stack import PACED, Stack, keep_measured

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aril import Client

QUESTION: Final = "fairness"
PACE: Final = 0.020  # seconds a step
ROWS: Final = 16
PARTITIONS: Final = 8
ASKED: Final = 200  # first tokens of each scene
PATIENCE: Final = 60.0  # seconds for one answer, and for all of a scene
SETTLE_SECONDS: Final = 3.0
SHARE_SECONDS: Final = 20.0


@dataclass(frozen=True)
class Flood:
    """One tenant's jobs, all at once."""

    name: str
    jobs: int = 10_000
    tokens: int = 100
    prompt: str = "x"


CASES: Final = (
    Flood("10,000 jobs of 2 s"),
    Flood("10,000 jobs of 8 s", tokens=400),
    Flood("10,000 jobs of 2 s, 8 kB each", prompt="x" * 8_000),
)


class Code(NamedTuple):
    """Whose worker runs."""

    name: str
    checkout: Path | None = None


async def first_token(client: Client) -> float:
    """Ask for five tokens; return the seconds until the first came, or until that was enough."""
    begun = time.monotonic()
    came = 0.0
    with contextlib.suppress(JobTimeout):
        async for event in client.stream("x", sampling={"max_tokens": 5}, timeout=PATIENCE):
            if isinstance(event, TokensEvent) and not came:
                came = time.monotonic() - begun
    return came or time.monotonic() - begun


async def first_tokens(client: Client, count: int, seconds: float) -> list[float]:
    """Ask so often, at random moments; stop once that takes too long."""
    chance, until, found = random.Random(1), time.monotonic() + seconds, list[float]()
    while len(found) < count and time.monotonic() < until:
        await asyncio.sleep(chance.uniform(0.05, 0.2))
        found.append(await first_token(client))
    return found


async def flood(stack: Stack, tenant: str, load: Flood) -> None:
    """Produce a tenant's jobs."""
    wire = await stack.wire()
    for _ in range(load.jobs):
        sampling = Sampling(max_tokens=load.tokens)
        job = Job(
            id=f"{tenant}-{uuid.uuid4().hex}", tenant=tenant, prompt=load.prompt, sampling=sampling
        )
        await wire.send(job.id, encode_request(job))


def percentile(samples: Sequence[float], part: int) -> float:
    """Return one of the hundred; of a single sample that one."""
    if len(samples) == 1:
        return samples[0]
    return statistics.quantiles(samples, n=100, method="inclusive")[part - 1]


async def measure_flood(bootstrap: str, code: Code, case: Flood) -> list[Row]:
    """Measure one tenant's first tokens without and with another's flood."""
    tenants = ("acme", "zeta")
    stack = Stack(bootstrap, partitions=PARTITIONS, reply_partitions=1, tenants=tenants)
    async with stack:
        await stack.add_worker(PACED, str(PACE), checkout=code.checkout, max_rows=ROWS)
        async with stack.clients() as (_, client):
            await first_tokens(client, 5, 60)
            quiet = await first_tokens(client, ASKED, 120)
            await flood(stack, "acme", case)
            await asyncio.sleep(SETTLE_SECONDS)
            crowded = await first_tokens(client, ASKED, PATIENCE)
    row = functools.partial(
        Row.of,
        question=QUESTION,
        provider=code.name,
        x=case.name,
        config=f"{ROWS} rows, {PACE * 1e3:.0f} ms a step, {PARTITIONS} partitions,"
        f" {len(quiet)} and {len(crowded)} jobs",
    )
    rows = []
    for part in (50, 99):
        alone, beside = percentile(quiet, part), percentile(crowded, part)
        rows += [
            row([alone * 1e3], metric=f"first token alone, p{part}", unit="ms"),
            row([beside * 1e3], metric=f"first token in the flood, p{part}", unit="ms"),
            row(ratios([beside], [alone]), metric=f"of alone, p{part}", unit="1"),
        ]
    return rows


def jain(shares: Sequence[float]) -> float:
    """Return how even shares are: 1 where they are equal, 1 / n where one has all."""
    return sum(shares) ** 2 / (len(shares) * sum(share**2 for share in shares))


async def measure_shares(bootstrap: str, code: Code) -> list[Row]:
    """Let four tenants flood, each in its way; count the tokens that each gets in a while."""
    loads = {
        "acme": Flood("many short", 4_000, 25),
        "blackbeard": Flood("few long", 400, 400),
        "ledgerly": Flood("some", 1_000, 100),
        "visitor": Flood("some, later", 1_000, 100),
    }
    stack = Stack(bootstrap, partitions=PARTITIONS, reply_partitions=1, tenants=tuple(loads))
    async with stack:
        await stack.add_worker(PACED, str(PACE), checkout=code.checkout, max_rows=ROWS)
        reader = await stack.wire()
        for tenant, load in loads.items():
            await flood(stack, tenant, load)
        await asyncio.sleep(SETTLE_SECONDS)
        await reader.values()
        counted = dict.fromkeys(loads, 0)
        until = time.monotonic() + SHARE_SECONDS
        while time.monotonic() < until:
            for value in await reader.values():
                record = decode_reply(value)
                if isinstance(record, TokensRecord):
                    counted[record.job.partition("-")[0]] += len(record.ids)
    row = functools.partial(
        Row.of,
        question=QUESTION,
        provider=code.name,
        config=f"{ROWS} rows, {PACE * 1e3:.0f} ms a step, {SHARE_SECONDS:.0f} s",
    )
    return [
        *(
            row([counted[tenant] / SHARE_SECONDS], x=load.name, metric="tokens/s", unit="1/s")
            for tenant, load in loads.items()
        ),
        row([jain([*counted.values()])], x="four floods", metric="Jain's index", unit="1"),
    ]


async def measure_all(bootstrap: str, codes: Sequence[Code]) -> list[Row]:
    """Measure every case, with each code in turn."""
    rows = []
    for case in CASES:
        for code in codes:
            rows += await measure_flood(bootstrap, code, case)
            print(
                *(f"{row.provider}, {row.x}: {row.metric} {row.p50:.4g}" for row in rows[-6:]),
                sep="\n",
            )
    for code in codes:
        rows += await measure_shares(bootstrap, code)
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--older", type=Path, metavar="CHECKOUT", help="measure its worker too")
    older = parser.parse_args().older
    codes = [Code("Aril"), *([Code("older", older.resolve())] if older else [])]
    keep_measured(QUESTION, functools.partial(measure_all, codes=codes))
