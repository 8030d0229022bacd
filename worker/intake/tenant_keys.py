"""Whose record is it? Public keys of tenants, a folder of them, and signatures made with them.

    <folder>/<tenant>/<key-id>.pem       an Ed25519 public key, PEM; several a tenant: rotation

The folder is read again every few seconds: a file that appears is a key, one that is gone is none.
What cannot be read, or is no such key, is no key either. Only when the folder itself cannot be
listed, as when its storage is away for a moment, what was known stays: refused records do not
come back.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from aril.schemas import is_tenant, limits
from aril.schemas.signature import (
    SignatureError,
    SignatureFault,
    find_signature,
    is_key_id,
    signed_message,
)
from aril.worker.observe.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from aril.worker.job import Record
    from aril.worker.observe.metrics import Metrics

log = get_logger(__name__)

RELOAD_SECONDS = 5.0
MAX_KEY_FILE_BYTES: Final = 4_096  # one is 113
SUFFIX: Final = ".pem"
LOGGED_NAMES: Final = 10


class TenantKeysError(Exception):
    """The folder of keys cannot be listed; the message is one line."""


@dataclass(frozen=True, slots=True)
class TenantKey:
    """A public key, with the file's bytes that it was made of."""

    pem: bytes
    public: Ed25519PublicKey


@dataclass(frozen=True, slots=True)
class FoundKeys:
    """What a folder holds: keys by (tenant, key id), and a line for each thing that is no key."""

    keys: Mapping[tuple[str, str], TenantKey] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    @property
    def tenants(self) -> set[str]:
        """The tenants that have a key."""
        return {tenant for tenant, _ in self.keys}


def read_keys(folder: Path, known: FoundKeys | None = None) -> FoundKeys:
    """Read a folder of keys; those whose files still say the same are taken from ``known``.

    Names that begin with a dot are passed over: that is where mounted volumes keep their own.
    Raises TenantKeysError if the folder cannot be listed.
    """
    before = known.keys if known is not None else {}
    keys: dict[tuple[str, str], TenantKey] = {}
    problems: list[str] = []
    try:
        homes = sorted(each for each in folder.iterdir() if not each.name.startswith("."))
    except OSError as error:
        raise TenantKeysError(f"tenant keys: {folder}: {error.strerror}") from None
    for home in homes:
        try:
            files = _key_files(home)
        except (OSError, ValueError) as error:
            problems.append(f"{home.name}: {_why(error)}")
            continue
        for file in files:
            name = home.name, file.name.removesuffix(SUFFIX)
            try:
                keys[name] = _read_key(file, before.get(name))
            except (OSError, ValueError) as error:
                problems.append(f"{home.name}/{file.name}: {_why(error)}")
    return FoundKeys(keys, (*problems, *_shared_keys(keys)))


def _key_files(home: Path) -> list[Path]:
    """List a tenant's files. ValueError if there are none, or it is no tenant."""
    if not is_tenant(home.name):
        raise ValueError("not a tenant's name (lower case, digits, -)")
    files = sorted(each for each in home.iterdir() if not each.name.startswith("."))
    if not files:
        raise ValueError("holds no key")
    return files


def _why(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _read_key(file: Path, known: TenantKey | None) -> TenantKey:
    """Read one key. ValueError if it is none; its text never holds what the file says."""
    if not file.name.endswith(SUFFIX) or not is_key_id(file.name.removesuffix(SUFFIX)):
        raise ValueError(f"not <key-id>{SUFFIX} (lower case, digits, -)")
    if not file.is_file():
        raise ValueError("not a file")
    with file.open("rb") as opened:
        pem = opened.read(MAX_KEY_FILE_BYTES + 1)
    if known is not None and known.pem == pem:
        return known
    if len(pem) > MAX_KEY_FILE_BYTES:
        raise ValueError(f"more than {MAX_KEY_FILE_BYTES} bytes")
    if b"PRIVATE KEY" in pem:
        raise ValueError("holds a private key: it belongs to the tenant alone, replace both")
    try:
        public = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("not a public key in PEM") from None
    if not isinstance(public, Ed25519PublicKey):
        raise ValueError("not an Ed25519 key")  # noqa: TRY004 - what the file holds, not a type of ours
    return TenantKey(pem, public)


def _shared_keys(keys: Mapping[tuple[str, str], TenantKey]) -> list[str]:
    """Name the keys that stand under two tenants: who has it can sign for both."""
    first: dict[bytes, str] = {}
    problems = []
    for (tenant, key_id), key in keys.items():
        owner = first.setdefault(key.public.public_bytes_raw(), tenant)
        if owner != tenant:
            problems.append(f"{tenant}/{key_id}{SUFFIX}: a key of {owner}, too")
    return problems


class TenantKeys:
    """The keys in use, and the judge of what is signed with them. Lives on the event loop."""

    def __init__(self, folder: Path, *, age_seconds: float, metrics: Metrics) -> None:
        """Read the folder. Raises TenantKeysError if it cannot be listed."""
        self._folder = folder
        self._age_ms = age_seconds * 1_000
        self._metrics = metrics
        self._found = FoundKeys()
        self._failure: str | None = None
        self._told_none = False
        self._take(read_keys(folder))

    async def watch(self) -> None:
        """Read the folder again and again, in a thread: its storage may be slow."""
        while True:
            await asyncio.sleep(RELOAD_SECONDS)
            try:
                found = await asyncio.to_thread(read_keys, self._folder, self._found)
            except TenantKeysError as error:
                self._keep(str(error))
            else:
                self._failure = None
                self._take(found)

    def signer_of(self, record: Record) -> str:
        """Return the tenant that signed a record, and nothing less: raises SignatureError.

        The cheap checks come first. The time is held against the log's, not against a clock of
        ours, so that every owner of the partition judges alike, however much later.
        """
        signed = find_signature(record.headers)
        key = self._found.keys.get((signed.tenant, signed.key_id))
        if key is None:
            raise SignatureError(SignatureFault.KEY_UNKNOWN, "signature: no such key of a tenant")
        late_ms = record.timestamp_ms - signed.signed_ms
        if abs(late_ms) > self._age_ms:
            raise SignatureError(
                SignatureFault.OUT_OF_TIME,
                f"signature: {abs(late_ms) / 1_000:.0f} s {'before' if late_ms > 0 else 'after'}"
                f" the record's time, at most {self._age_ms / 1_000:g}",
                limit=self._age_ms,
                given=late_ms,
            )
        if record.key is None or record.value is None:
            raise SignatureError(SignatureFault.INVALID, "signature: of a record without a value")
        if len(record.value) > limits.MAX_REQUEST_BYTES:
            raise SignatureError(
                SignatureFault.INVALID, "signature: not looked at, the record is too large"
            )
        message = signed_message(
            tenant=signed.tenant,
            key_id=signed.key_id,
            topic=record.source.topic,
            partition=record.source.partition,
            key=record.key,
            signed_ms=signed.signed_ms,
            value=record.value,
        )
        try:
            key.public.verify(signed.signature, message)
        except InvalidSignature:
            raise SignatureError(
                SignatureFault.INVALID, "signature: not of this record by that key"
            ) from None
        return signed.tenant

    def _keep(self, failure: str) -> None:
        """Go on with what is known, and say so once."""
        if failure != self._failure:
            log.error("tenant_keys_unreadable", error=failure, kept=len(self._found.keys))
        self._failure = failure

    def _take(self, found: FoundKeys) -> None:
        before, self._found = self._found, found
        self._metrics.tenant_keys.set(len(found.keys))
        changed = {name for name, key in found.keys.items() if before.keys.get(name) != key}
        gone = set(before.keys) - set(found.keys)
        if changed or gone:
            log.info(
                "tenant_keys",
                tenants=len(found.tenants),
                keys=len(found.keys),
                read=_names(changed),
                gone=_names(gone),
            )
        if not found.keys and (gone or not self._told_none):
            log.warning("no_tenant_keys", why="no tenant has a key: every record is put aside")
        self._told_none = not found.keys
        for problem in found.problems:
            if problem not in before.problems:
                log.warning("tenant_keys_problem", problem=problem)


def _names(keys: set[tuple[str, str]]) -> list[str]:
    """Name some keys, for the log."""
    return ["/".join(name) for name in sorted(keys)[:LOGGED_NAMES]]
