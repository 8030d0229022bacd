"""Folders of tenants' keys, and records signed or forged with them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from aril.schemas import encode_request
from aril.worker.intake.tenant_keys import TenantKeys
from aril.worker.job import Partition, Record
from aril.worker.observe.metrics import Metrics

if TYPE_CHECKING:
    from pathlib import Path

    from aril.schemas import Cancel, Job
    from aril.signer import Signer

AGE_SECONDS = 600.0
JOBS = Partition("jobs", 0)


def put_key(folder: Path, tenant: str, signer: Signer, *, key_id: str | None = None) -> Path:
    """Put a signer's public key where workers look for it."""
    (folder / tenant).mkdir(parents=True, exist_ok=True)
    path = folder / tenant / f"{key_id or signer.key_id}.pem"
    path.write_bytes(signer.public_pem())
    return path


def keys_of(folder: Path) -> TenantKeys:
    """Read a folder as a worker does."""
    return TenantKeys(folder, age_seconds=AGE_SECONDS, metrics=Metrics())


def signed(
    request: Job | Cancel | bytes,
    signer: Signer,
    *,
    tenant: str = "acme",
    key: bytes = b"j1",
    source: Partition = JOBS,
    timestamp_ms: int | None = None,
) -> Record:
    """Return a record signed as ``tenant`` now, appended now unless told otherwise."""
    value = request if isinstance(request, bytes) else encode_request(request)
    header = signer.header(
        tenant=tenant, topic=source.topic, partition=source.partition, key=key, value=value
    )
    at = int(time.time() * 1_000) if timestamp_ms is None else timestamp_ms
    return Record(source, 0, at, key, value, [("content-type", b"application/msgpack"), header])
