"""Signed tokens for tests (RFC 7519, RS256), and the set of keys that a broker verifies them by."""

from __future__ import annotations

import base64
import json
import time
from typing import TYPE_CHECKING, Any, Final

from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256

if TYPE_CHECKING:
    from pathlib import Path

AUDIENCE: Final = "kafka"
KEY_ID: Final = "tests"


class Issuer:
    """Gives tokens to those who are named."""

    def __init__(self) -> None:
        self._key = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)

    def token(self, subject: str, *, seconds: float) -> str:
        """Return a token that is good for so many seconds."""
        now = time.time()
        claims = {"sub": subject, "aud": AUDIENCE, "iat": int(now), "exp": int(now + seconds)}
        signed = f"{_part({'alg': 'RS256', 'kid': KEY_ID})}.{_part(claims)}"
        signature = self._key.sign(signed.encode(), padding.PKCS1v15(), SHA256())
        return f"{signed}.{_base64(signature)}"

    def write(self, path: Path, subject: str, *, seconds: float) -> None:
        """Put a new token into a file, in one moment, as a kubelet does it."""
        fresh = path.with_suffix(".new")
        fresh.write_text(self.token(subject, seconds=seconds) + "\n")
        fresh.replace(path)

    def key_set(self) -> str:
        """Return the JSON that says how these tokens are verified."""
        numbers = self._key.public_key().public_numbers()
        n = _base64(numbers.n.to_bytes(256, "big"))
        e = _base64(numbers.e.to_bytes(3, "big"))
        key = {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": KEY_ID, "n": n, "e": e}
        return json.dumps({"keys": [key]})


def _part(value: dict[str, Any]) -> str:
    return _base64(json.dumps(value).encode())


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
