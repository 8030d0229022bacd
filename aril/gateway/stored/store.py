"""The folder of all tenants' files and batches."""

from __future__ import annotations

import contextlib
import os
import secrets
from typing import TYPE_CHECKING

from aril.gateway.stored.batches import Batches
from aril.gateway.stored.disk import Lock, make_folder
from aril.gateway.stored.files import Files
from aril.schemas import is_tenant

if TYPE_CHECKING:
    from pathlib import Path


class StoreError(ValueError):
    """The folder cannot be used; one line."""


class Store:
    """One folder, which several gateways may share. It blocks: call it in a thread."""

    def __init__(self, folder: Path, *, days: float) -> None:
        """Make the folder, or try whether it can do what is needed. Raises `StoreError`."""
        self._folder = folder
        self._days = days
        try:
            make_folder(folder.absolute())
            _try(folder)
        except OSError as error:
            raise StoreError(f"{folder}: {error.strerror}") from None

    def tenants(self) -> list[str]:
        """Return those who have anything here."""
        return sorted(each.name for each in self._folder.iterdir() if is_tenant(each.name))

    def files(self, tenant: str) -> Files:
        """Return a tenant's files."""
        return Files(self._folder / tenant / "files", days=self._days)

    def batches(self, tenant: str) -> Batches:
        """Return a tenant's batches."""
        return Batches(self._folder / tenant)


def _try(folder: Path) -> None:
    """Lock a file and give it a second name, which not every file system can.

    Raises OSError, `StoreError`.
    """
    probe = folder / f".probe.{secrets.token_hex(4)}"
    other = probe.with_suffix(".link")
    with contextlib.ExitStack() as stack:
        for path in (probe, other):
            stack.callback(path.unlink, missing_ok=True)
        if (lock := Lock.take(probe)) is not None:
            stack.callback(lock.free)
        if (second := Lock.take(probe)) is not None:
            second.free()
            raise StoreError(f"{folder}: locks do not hold on this file system")
        os.link(probe, other)
