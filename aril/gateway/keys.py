"""API keys: whose each is, from a file of their hashes that is read again when it changes.

    [[keys]]
    name = "acme-web"                   # told in logs, in place of the key
    tenant = "acme"
    sha256 = "9f86d0…"                  # of the key, which is random and long: no salt is needed
    requests_per_second = 20            # optional
    streams = 200                       # optional: answers at the same time

A file that is being written may be whole TOML and half of the keys: put another in its place.

A key is found by the hash of what was sent, so how long that takes tells nothing of any key.
"""

from __future__ import annotations

import hashlib
import secrets
import time
import tomllib
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from aril.schemas import is_tenant

if TYPE_CHECKING:
    from pathlib import Path

LOOK_SECONDS: Final = 1.0
PREFIX: Final = "aril-"


class KeysError(ValueError):
    """The file of keys cannot be used; one line, without anything of a key."""


class Caller(BaseModel):
    """Who asks, by one of its keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    name: Annotated[str, StringConstraints(min_length=1, max_length=100)]
    tenant: str
    sha256: Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")] = "0" * 64
    requests_per_second: Annotated[float, Field(gt=0)] | None = None
    streams: Annotated[int, Field(gt=0)] | None = None


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    keys: tuple[Caller, ...] = ()


class Keys:
    """Callers by their keys."""

    def __init__(self, path: Path) -> None:
        """Read the file. Raises `KeysError`."""
        self._path = path
        self._stamp: tuple[int, int] = (0, 0)
        self._looked = 0.0
        self._callers: dict[str, Caller] = {}
        self.fault: str | None = None
        self._read()
        if self.fault is not None:
            raise KeysError(self.fault)

    @property
    def tenants(self) -> set[str]:
        """Whose keys there are."""
        return {caller.tenant for caller in self._callers.values()}

    def find(self, key: str) -> Caller | None:
        """Return whose key this is, as the file says now; a broken file changes nothing."""
        if time.monotonic() - self._looked > LOOK_SECONDS:
            self._read()
        return self._callers.get(hash_of(key))

    def _read(self) -> None:
        self._looked = time.monotonic()
        try:
            about = self._path.stat()
            stamp = (about.st_mtime_ns, about.st_size)
            if stamp == self._stamp:  # as it was, or so again
                self.fault = None
                return
            callers = read_keys(self._path)
        except OSError as error:
            self.fault = f"{self._path}: {error.strerror}"
        except KeysError as error:
            self.fault = str(error)
        else:
            self._stamp, self._callers, self.fault = stamp, callers, None


def read_keys(path: Path) -> dict[str, Caller]:
    """Return callers by their keys' hashes. Raises `KeysError` or OSError."""
    try:
        file = _File.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise KeysError(f"{path}: {where}: {first['msg']}") from None
    except ValueError:
        raise KeysError(f"{path}: not TOML") from None
    if not file.keys:  # what is being written is empty for a moment
        raise KeysError(f"{path}: holds no key")
    for number, caller in enumerate(file.keys):
        if not is_tenant(caller.tenant):
            raise KeysError(f"{path}: keys.{number}.tenant: not a tenant's name")
    found = {caller.sha256: caller for caller in file.keys}
    if len(found) < len(file.keys):
        raise KeysError(f"{path}: a key stands there twice")
    return found


def hash_of(key: str) -> str:
    """Return what the file has of a key."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def new_key() -> str:
    """Return a new key."""
    return PREFIX + secrets.token_urlsafe(32)
