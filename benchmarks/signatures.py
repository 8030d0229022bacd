"""Measure what a signature costs a job: made by the client, verified by the worker's intake.

    python -m benchmarks.signatures    # writes signatures.csv

CPU time of one thread, since that is the event loop's. A round does each thing in turn, so that a
machine that changes its speed changes all of them; `share` is a ratio within one round.
"""

from __future__ import annotations

import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from aril.schemas import Job, encode_request
from aril.signer import Signer
from aril.worker.intake.judge import Judge
from aril.worker.intake.tenant_keys import TenantKeys, read_keys
from aril.worker.job import Partition, Record
from aril.worker.observe.metrics import Metrics
from aril.worker.settings import load_settings
from benchmarks.cpu_time import microseconds
from benchmarks.record import Row, keep, ratios
from benchmarks.turns import in_turns

if TYPE_CHECKING:
    from collections.abc import Callable

QUESTION = "signatures"
CHARS = (240, 10_000, 400_000)
ROUNDS = 30
TENANTS = 1_000
VERIFICATIONS = 200
SOURCE = Partition("jobs", 3)

row = partial(
    Row.of,
    question=QUESTION,
    provider="aril",
    config=f"{TENANTS} tenants, cryptography {version('cryptography')}, CPU time of one thread;"
    " x: characters of prompt, or keys",
)


def record_of(job: Job, signer: Signer) -> Record:
    """Return a job's record, signed."""
    value, key = encode_request(job), job.id.encode()
    header = signer.header(
        tenant=job.tenant, topic=SOURCE.topic, partition=SOURCE.partition, key=key, value=value
    )
    return Record(SOURCE, 0, int(time.time() * 1_000), key, value, [header])


def put_keys(folder: Path, tenants: int) -> Signer:
    """Give so many tenants a key each; return the first one's signer."""
    signers = []
    for number in range(tenants):
        signer = Signer.new()
        home = folder / f"t{number}"
        home.mkdir()
        (home / f"{signer.key_id}.pem").write_bytes(signer.public_pem())
        signers.append(signer)
    return signers[0]


def measure(folder: Path) -> list[Row]:
    """Measure jobs of each size, then the folder of keys."""
    signer = put_keys(folder, TENANTS)
    keys = TenantKeys(folder, age_seconds=86_400, metrics=Metrics())
    plain = Judge(load_settings().settings)
    flags = {"tenant_from": "signature", "tenant_keys": str(folder)}
    signed = Judge(load_settings(flags=flags).settings, keys)
    rows = []
    for chars in CHARS:
        job = Job(id="3f2b6c1e8d474a0b9c550d1e2f3a4b5c", tenant="t0", prompt="x" * chars)
        record, stranger = record_of(job, signer), record_of(job, Signer.new())
        works: dict[str, Callable[[], object]] = {
            "sign": lambda job=job: record_of(job, signer),  # type: ignore[misc]
            "verify": lambda record=record: keys.signer_of(record),  # type: ignore[misc]
            "judge": lambda record=record: plain.verdict(record),  # type: ignore[misc]
            "judge_signed": lambda record=record: signed.verdict(record),  # type: ignore[misc]
            "judge_unknown": lambda stranger=stranger: signed.verdict(stranger),  # type: ignore[misc]
        }
        found = in_turns(
            {name: partial(microseconds, work) for name, work in works.items()}, ROUNDS
        )
        rows += [row(spent, metric=name, x=chars, unit="us") for name, spent in found.items()]
        shares = ratios(found["judge_signed"], found["judge"])
        rows.append(row(shares, metric="signed_over_plain", x=chars, unit="ratio"))
        threads = shares_of_two_threads(keys, record)
        rows.append(row(threads, metric="two_threads", x=chars, unit="ratio"))
    known = read_keys(folder)
    again = [microseconds(lambda: read_keys(folder, known)) / 1_000 for _ in range(ROUNDS)]
    rows.append(row(again, metric="read_keys_again", x=TENANTS, unit="ms"))
    return rows


def shares_of_two_threads(keys: TenantKeys, record: Record) -> list[float]:
    """Return how many times as much two threads verify in the same time as one does."""

    def verify_many() -> None:
        for _ in range(VERIFICATIONS):
            keys.signer_of(record)

    def seconds(threads: int) -> float:
        begin = time.perf_counter()
        with ThreadPoolExecutor(threads) as pool:
            for each in [pool.submit(verify_many) for _ in range(threads)]:
                each.result()
        return time.perf_counter() - begin

    return [2 * seconds(1) / seconds(2) for _ in range(ROUNDS)]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        measured = measure(Path(scratch))
    keep(QUESTION, measured)
