"""The folder of a gateway as a kill would leave it, before each thing that is written to it."""

from __future__ import annotations

import shutil
import threading
from typing import TYPE_CHECKING, Any, Final

from aril.batches.output import Output
from aril.gateway.stored.batches import Batches
from aril.gateway.stored.disk import Part

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest

WRITING: Final = (
    (Part, "keep"),
    (Output, "_write_name"),
    (Batches, "save"),
    (Batches, "cancel"),
    (Batches, "tidy"),
)


class CrashPoints:
    """Copies of a folder, one for each moment at which its process could have died."""

    def __init__(self, folder: Path, copies: Path) -> None:
        self._folder = folder
        self._copies = copies
        self._one_at_a_time = threading.Lock()
        self.found: list[Path] = []

    def watch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Copy the folder before each write from now on, and at a torn line of the answers."""
        for kind, name in WRITING:
            monkeypatch.setattr(kind, name, self._before(getattr(kind, name)))
        append = Output.append

        def torn(output: Output, record: bytes) -> None:
            self._copy()
            path = output._path.relative_to(self._folder)
            with (self._copy() / path).open("ab") as file:
                file.write(record[: len(record) // 2])
            append(output, record)

        monkeypatch.setattr(Output, "append", torn)

    def _before(self, write: Callable[..., Any]) -> Callable[..., Any]:
        def copying(*arguments: Any, **options: Any) -> Any:
            self._copy()
            return write(*arguments, **options)

        return copying

    def _copy(self) -> Path:
        with self._one_at_a_time:
            copy = self._copies / str(len(self.found))
            shutil.copytree(self._folder, copy)
            self.found.append(copy)
            return copy
