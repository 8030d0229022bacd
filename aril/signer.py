"""A tenant's private key, and what it signs: jobs and cancels, so that nobody else can send them.

    signer = Signer.from_file("acme.key")
    async with Client("kafka:9092", "acme", signer=signer) as client:
        ...

`aril keys new acme` makes such a file. What is signed is described in schemas/README.md.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from aril.errors import BadKey
from aril.schemas.signature import SIGNATURE_HEADER, SignatureHeader, is_key_id, signed_message

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

MAX_KEY_FILE_BYTES: Final = 4_096
KEY_ID_DIGITS: Final = 16
MS: Final = 1_000


class Signer:
    """Signs with one Ed25519 key. Its repr names the key and never holds it."""

    def __init__(
        self,
        key: Ed25519PrivateKey,
        *,
        key_id: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Prepare; `clock` gives seconds since the epoch, close to the brokers' clock.

        `key_id` names the file of the public key at the workers, without `.pem`; left out, it is
        the one that `aril keys new` gives, made of the public key. Raises `BadKey` if it is no
        name.
        """
        self._key = key
        self._clock = clock
        self.key_id: str = key_id_of(key.public_key()) if key_id is None else key_id
        if not is_key_id(self.key_id):
            raise BadKey(f"{self.key_id!r} cannot name a key (lower case, digits, -)")

    @classmethod
    def new(cls) -> Self:
        """Return a signer with a key that was never used."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_file(cls, path: Path | str, *, key_id: str | None = None) -> Self:
        """Read a private key in PEM (PKCS #8, not encrypted). Raises `BadKey`.

        Refused too if other users of the machine may read the file.
        """
        try:
            with Path(path).open("rb") as file:
                if os.fstat(file.fileno()).st_mode & (stat.S_IROTH | stat.S_IWOTH):
                    raise BadKey(f"{path}: everybody on this machine may read it (chmod 600)")
                pem = file.read(MAX_KEY_FILE_BYTES)
        except OSError as error:
            raise BadKey(f"{path}: {error.strerror}") from None
        try:
            key = load_pem_private_key(pem, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise BadKey(f"{path}: not a private key in PEM, or one behind a password") from None
        if not isinstance(key, Ed25519PrivateKey):
            raise BadKey(f"{path}: not an Ed25519 key")
        return cls(key, key_id=key_id)

    def __repr__(self) -> str:
        return f"<Signer {self.key_id}>"

    def save(self, path: Path) -> None:
        """Write the private key into a new file that only its owner may read. Raises OSError."""
        pem = self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(pem)

    def public_pem(self) -> bytes:
        """Return what the workers' folder of keys needs, as `<tenant>/<key id>.pem`."""
        public = self._key.public_key()
        return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def header(
        self, *, tenant: str, topic: str, partition: int, key: bytes, value: bytes
    ) -> tuple[str, bytes]:
        """Return the header of one record of the jobs topic, as it will be sent, signed now."""
        signed_ms = int(self._clock() * MS)
        message = signed_message(
            tenant=tenant,
            key_id=self.key_id,
            topic=topic,
            partition=partition,
            key=key,
            signed_ms=signed_ms,
            value=value,
        )
        signature = self._key.sign(message)
        return SIGNATURE_HEADER, bytes(SignatureHeader(tenant, self.key_id, signed_ms, signature))


def key_id_of(public: Ed25519PublicKey) -> str:
    """Return a name for a public key: the beginning of the SHA-256 of its 32 bytes."""
    return hashlib.sha256(public.public_bytes_raw()).hexdigest()[:KEY_ID_DIGITS]
