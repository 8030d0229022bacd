"""Files in the folder of tenants' public keys."""

from __future__ import annotations

from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Final, NamedTuple

from aril.schemas import is_tenant
from aril.schemas.signature import is_key_id
from aril.worker.intake.tenant_keys import MAX_KEY_FILE_BYTES, read_keys
from tests.fuzz.mutate import bend, chance, pick
from tests.fuzz.surroundings import memory_folder, quiet
from tests.fuzz.target import ACCEPTED, Target, holds
from tests.fuzz.targets.signatures import signer_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from random import Random


class _KeyFile(NamedTuple):
    """A file in the folder of keys, as whoever writes there could leave it."""

    tenant: str
    name: str
    pem: bytes


_keys_folder: list[Path] = []


@contextmanager
def _keys_around() -> Iterator[None]:
    with memory_folder() as folder, quiet():
        _keys_folder.append(folder)
        try:
            yield
        finally:
            _keys_folder.pop()


def _make_key(rng: Random) -> _KeyFile:
    good = signer_of(int(rng.random() * 3)).public_pem()
    pem = pick(rng, (good, good, _other_pem()))
    if chance(rng, 0.8):
        pem = bend(rng, pem)
    if chance(rng, 0.02):
        pem *= 40
    name = pick(rng, ("k" * 64, "K", "key\n", "é", "key.pem")) if chance(rng, 0.1) else "key"
    tenant = pick(rng, ("shared", "Acme", "a b")) if chance(rng, 0.05) else "acme"
    suffix = pick(rng, ("", ".PEM")) if chance(rng, 0.05) else ".pem"
    return _KeyFile(tenant, name + suffix, pem)


@cache
def _other_pem() -> bytes:
    """Return a public key of another kind."""
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415 - for this only
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415
        Encoding,
        PublicFormat,
    )

    key = ec.derive_private_key(7, ec.SECP256R1())
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _check_key(case: _KeyFile) -> str:
    home = _keys_folder[-1] / case.tenant
    home.mkdir()
    path = home / case.name
    path.write_bytes(case.pem)
    try:
        found = read_keys(_keys_folder[-1])
    finally:
        path.unlink()
        home.rmdir()
    holds(len(found.keys) + len(found.problems) == 1, "a file is a key, or a line says why not")
    for (tenant, key_id), key in found.keys.items():
        holds(is_tenant(tenant) and is_key_id(key_id), "names are names")
        holds(len(key.pem) <= MAX_KEY_FILE_BYTES and b"PRIVATE" not in key.pem, "a public key")
        holds(len(key.public.public_bytes_raw()) == 32, "of 32 bytes")
        return ACCEPTED
    problem = found.problems[0].rpartition(": ")[2]
    return "_".join(problem.split()[:4])


TARGET: Final = Target(
    name="keys",
    about="files of tenants' public keys: aril.worker.intake.tenant_keys.read_keys",
    share=120,
    make=_make_key,
    check=_check_key,
    size=lambda case: len(case.pem),
    around=_keys_around,
)
