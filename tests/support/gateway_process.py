"""A real `aril gateway` process for tests."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aril.broker import free_port
from tests.support.workers import WorkerProcess

if TYPE_CHECKING:
    from pathlib import Path

START_SECONDS = 60.0


class GatewayProcess(WorkerProcess):
    """One `aril gateway` with its own settings; an async context manager."""

    def __init__(
        self,
        name: str,
        folder: Path,
        *,
        host: str = "127.0.0.1",
        port: int | None = None,
        **settings: object,
    ) -> None:
        """Prepare; with `port` where another one was, as after a restart."""
        port = port or free_port()
        address = f"{host}:{port}"
        super().__init__(name, folder, gateway_http=address, **settings)
        self.module = ("aril", "gateway")
        self.url = f"http://127.0.0.1:{port}"

    async def alive(self) -> None:
        """Wait until it listens."""
        async with asyncio.timeout(START_SECONDS):
            while (await self.probe("/livez"))[0] != 200:  # noqa: ASYNC110 - as below
                await asyncio.sleep(0.1)

    async def told(self, text: str) -> None:
        """Wait until its log has a text."""
        async with asyncio.timeout(START_SECONDS):
            while text not in self.log.read_text():  # noqa: ASYNC110 - another process writes it
                await asyncio.sleep(0.1)
