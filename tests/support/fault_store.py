"""The adapter store of a run, slow or ill for one tenant's adapter: a file tells all workers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from pathlib import Path

Trouble = Literal["slow", "ill"]
LOOK_SECONDS: Final = 0.05


class StoreTrouble:
    """What is wrong with the store; `path` is the file that tells, where nothing is wrong none."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def begin(self, tenant: str, adapter: str, trouble: Trouble) -> None:
        """Have it in all workers from their next look on."""
        written = self._path.with_suffix(".new")
        written.write_text(f"{tenant} {adapter} {trouble}")
        written.replace(self._path)

    def end(self) -> None:
        """Have the store well again."""
        self._path.unlink()

    async def reach(self, tenant: str, adapter: str) -> None:
        """Wait as long as the store is slow for this adapter. Raises OSError where it is ill."""
        while (trouble := self._told(tenant, adapter)) is not None:
            if trouble == "ill":
                raise OSError("the adapter store is ill")
            await asyncio.sleep(LOOK_SECONDS)

    def _told(self, tenant: str, adapter: str) -> str | None:
        try:
            *whose, trouble = self._path.read_text().split()
        except FileNotFoundError:
            return None
        return trouble if whose == [tenant, adapter] else None
