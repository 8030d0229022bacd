"""A real Prometheus for tests: the configuration of compose.yaml's, the workers that it is told."""

from __future__ import annotations

import asyncio
import os
import subprocess
from typing import TYPE_CHECKING, Any, Final, Self

import aiohttp
import pytest
import yaml

from aril.broker import free_port
from tests.support.dashboards import OBSERVE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

TOOLS: Final = OBSERVE.parents[1] / "build" / "observe"
READY_SECONDS: Final = 60.0
SCRAPES: Final = "1s"  # a test has no time for fifteen


def need_tools() -> None:
    """Skip where prometheus and promtool were not made, but where they are asked for."""
    if not (TOOLS / "made-from").exists():
        assert "REQUIRE_PROMETHEUS" not in os.environ, "deploy/observe/tools.sh makes them"
        pytest.skip("no prometheus and promtool: make test-observe")


class Prometheus:
    """Scrapes workers every second and evaluates our rules; an async context manager."""

    def __init__(self, folder: Path, workers: Sequence[str]) -> None:
        """Prepare; `workers` are host:port."""
        self._folder = folder
        self._port = free_port()
        config: dict[str, Any] = yaml.safe_load((OBSERVE / "prometheus.yml").read_text())
        config["global"] |= dict.fromkeys(("scrape_interval", "evaluation_interval"), SCRAPES)
        config["global"]["scrape_timeout"] = SCRAPES
        config["rule_files"] = [str(OBSERVE / "rules" / "*.yml")]
        (scrape,) = config["scrape_configs"]
        del scrape["dns_sd_configs"]
        scrape["static_configs"] = [{"targets": list(workers)}]
        self._config = folder / "prometheus.yml"
        self._config.write_text(yaml.safe_dump(config))
        self._process: subprocess.Popen[bytes] | None = None

    async def __aenter__(self) -> Self:
        self._start()
        self._session = aiohttp.ClientSession(f"http://127.0.0.1:{self._port}")
        try:
            async with asyncio.timeout(READY_SECONDS):
                while not await self._ready():  # noqa: ASYNC110 - another process's state
                    await asyncio.sleep(0.1)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    def _start(self) -> None:
        with (self._folder / "prometheus.log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    TOOLS / "prometheus",
                    f"--config.file={self._config}",
                    f"--storage.tsdb.path={self._folder / 'prometheus'}",
                    f"--web.listen-address=127.0.0.1:{self._port}",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()
        assert self._process is not None
        self._process.kill()
        await asyncio.to_thread(self._process.wait)

    async def _ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._folder / "prometheus.log").read_text()
        try:
            async with self._session.get("/-/ready") as answer:
                return answer.status == 200
        except aiohttp.ClientConnectionError:
            return False

    async def ask(self, path: str, **query: str) -> Any:
        """Return what the API at `path` answers. Raises AssertionError if that is an error."""
        async with self._session.get(f"/api/v1/{path}", params=query) as answer:
            told = await answer.json()
        assert told["status"] == "success", (query, told)
        return told["data"]

    async def value(self, expression: str) -> float | None:
        """Return what an expression of one series is now; None if it has none."""
        result = (await self.ask("query", query=expression))["result"]
        return float(result[0]["value"][1]) if result else None
