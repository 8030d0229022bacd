"""Signed records: the header, whose record it is, and the files that keys stand in."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from random import Random
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgpack
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from aril.schemas import Cancel, Job, is_tenant
from aril.schemas.signature import (
    SIGNATURE_HEADER,
    SignatureError,
    SignatureHeader,
    find_signature,
    is_key_id,
)
from aril.signer import Signer
from aril.worker.intake.judge import Judge, Refused
from aril.worker.job import Partition, Record, digest_of
from aril.worker.settings import WorkerSettings
from tests.fuzz.mutate import INTEGERS, TEXTS, bend, chance, pick
from tests.fuzz.surroundings import memory_folder, quiet
from tests.fuzz.target import ACCEPTED, Target, holds, slug, told
from tests.fuzz.targets.requests import job_fields
from tests.support.signing import JOBS, keys_of, put_key

if TYPE_CHECKING:
    from collections.abc import Callable

_NOW_MS: Final = 1_800_000_000_000
_TENANTS: Final = ("acme", "zeta")
_EDGES_MS: Final = (-600_001, -600_000, 600_000, 600_001)
_MORE_HEADERS: Final = ((SIGNATURE_HEADER, None), ("é" * 300, b"x" * 20_000))
_POOL: Final = 64  # signed records that cases begin with: signing is slow


class _World(NamedTuple):
    """Whose keys are known, what they signed, and who judges."""

    judge: Judge
    signed: tuple[Record, ...]
    genuine: frozenset[tuple[Any, ...]]


def signer_of(number: int) -> Signer:
    """Return the signer of that number, with the same key each time."""
    private = Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)
    return Signer(private, clock=lambda: _NOW_MS / 1_000)


@cache
def _world() -> _World:
    rng = Random(1)
    settings = WorkerSettings.model_validate(
        {"tenant_from": "signature", "tenant_keys": "keys", "model": "m"}
    )
    records = []
    with memory_folder() as folder, quiet():
        for number, tenant in enumerate(_TENANTS):
            put_key(folder, tenant, signer_of(number))
        judge = Judge(settings, keys_of(folder))
    for at in range(_POOL):
        number = at % 2
        fields = job_fields(rng) | {"tenant": _TENANTS[number if at % 5 else 1 - number]}
        value = msgpack.packb(fields)
        header = signer_of(number).header(
            tenant=_TENANTS[number], topic=JOBS.topic, partition=0, key=b"j1", value=value
        )
        records.append(Record(JOBS, at, _NOW_MS, b"j1", value, (("trace", b"1"), header)))
    return _World(judge, tuple(records), frozenset(map(_signed_part, records)))


def _signed_part(record: Record) -> tuple[Any, ...]:
    """Return all that a signature holds for, and the signature."""
    headers = tuple(value for name, value in record.headers if name == SIGNATURE_HEADER)
    return record.source, record.key, record.value, headers


def _make_signed(rng: Random) -> Record:
    record = pick(rng, _world().signed)
    for _ in range(pick(rng, (0, 1, 1, 1, 2))):
        record = _bent(rng, record)
    return record


def _bent(rng: Random, record: Record) -> Record:
    """Change what a signature holds for, or the signature, or when it came."""
    headers = tuple(record.headers)
    more = pick(rng, headers) if headers else ("a", b"")
    changes: tuple[Callable[[], dict[str, Any]], ...] = (
        lambda: {"value": pick(rng, (None, b"", bend(rng, record.value or b"")))},
        lambda: {"key": pick(rng, (None, b"", bend(rng, record.key or b"")))},
        lambda: {"timestamp_ms": _NOW_MS + pick(rng, (*_EDGES_MS, *INTEGERS))},
        lambda: {"source": pick(rng, (Partition("jobs", 1), Partition("other", 0)))},
        lambda: {"headers": pick(rng, _world().signed).headers},
        lambda: {"headers": (*headers, pick(rng, (more, *_MORE_HEADERS)))},
        lambda: {
            "headers": tuple(
                (name, bend(rng, value) if value and name == SIGNATURE_HEADER else value)
                for name, value in headers
            )
        },
    )
    return replace(record, **pick(rng, changes)())


def _check_signed(record: Record) -> str:
    verdict = _world().judge.verdict(record)
    if isinstance(verdict, Refused):
        holds(verdict.reason is not None or verdict.tenant, "somebody is told, or it is put aside")
        holds(verdict.tenant is None or _genuine(record), "nobody is told of what nobody signed")
        if verdict.reason is not None:
            slug(verdict.reason)
        lean = record.lean()
        holds(lean.size <= 3_000 + 200 * 600 + 20_000 + 2 * len(record.value or b""), "it is lean")
        return verdict.reason or told(verdict.error)
    holds(_genuine(record), "what is taken was signed")
    if isinstance(verdict, Job):
        digest_of(record.value, verdict)
    return f"{ACCEPTED} cancel" if isinstance(verdict, Cancel) else ACCEPTED


def _genuine(record: Record) -> bool:
    return (
        _signed_part(record) in _world().genuine and abs(record.timestamp_ms - _NOW_MS) <= 600_000
    )


def _make_header(rng: Random) -> tuple[tuple[str, bytes | None], ...]:
    name, data = pick(rng, _world().signed).headers[1]
    if chance(rng, 0.1):
        parts = [b"1", b"acme", b"k" * pick(rng, (1, 63, 64)), str(pick(rng, INTEGERS)).encode()]
        data = b".".join((*parts, b"0f" * 64))
    if chance(rng, 0.05):
        data = pick(rng, TEXTS).encode() + data
    if chance(rng, 0.8):
        data = bend(rng, data, 1 + int(rng.random() * 2))
    shape = rng.random()
    if shape < 0.9:
        return (("other", None), (name, data))
    return pick(
        rng, ((), ((name, None),), ((name, data), (name, data)), (("ARIL-SIGNATURE", data),))
    )


def _check_header(headers: tuple[tuple[str, bytes | None], ...]) -> str:
    try:
        found = find_signature(headers)
    except SignatureError as error:
        told(error)
        return slug(error.fault.value)
    data = next(value for name, value in headers if name == SIGNATURE_HEADER)
    holds(bytes(found) == data, "a header is written in one form only")
    holds(is_tenant(found.tenant) and is_key_id(found.key_id), "names are names")
    holds(0 < found.signed_ms < 10**15, "a time has bounds")
    holds(SignatureHeader.parse(bytes(found)) == found, "it comes back as it was")
    return ACCEPTED


HEADERS: Final = Target(
    name="headers",
    about="the signature's header: aril.schemas.signature.find_signature",
    share=1_500,
    make=_make_header,
    check=_check_header,
    size=lambda headers: sum(len(value or b"") for _, value in headers),
    factor=64,
)
SIGNED: Final = Target(
    name="signed",
    about="signed records: aril.worker.intake.judge with the keys of two tenants",
    share=500,
    make=_make_signed,
    check=_check_signed,
    size=lambda record: len(record.value or b"") + record.headers_bytes,
    factor=64,
)
