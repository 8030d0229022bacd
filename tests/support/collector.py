"""OpenTelemetry's collector, as far as a test needs one: it takes spans by OTLP over HTTP."""

from __future__ import annotations

import asyncio
from typing import Any, Self

from aiohttp import web


class Collector:
    """Keeps every span that comes; an async context manager."""

    def __init__(self, *, status: int = 200) -> None:
        self.spans: list[Any] = []  # protobuf's Span, in the order of their coming
        self.resource: dict[str, str] = {}  # of the last request
        self.headers: dict[str, str] = {}
        self.came = asyncio.Event()
        self._status = status

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post("/{path:.*}", self._take)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    @property
    def url(self) -> str:
        """Where it listens."""
        host, port = self._runner.addresses[0][:2]
        return f"http://{host}:{port}"

    async def _take(self, request: web.Request) -> web.Response:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (  # noqa: PLC0415 - not everywhere
            ExportTraceServiceRequest,
        )

        if self._status == 200:
            told = ExportTraceServiceRequest.FromString(await request.read())
            self.headers = {name.lower(): value for name, value in request.headers.items()}
            for group in told.resource_spans:
                pairs = group.resource.attributes
                self.resource = {pair.key: pair.value.string_value for pair in pairs}
                for scope in group.scope_spans:
                    self.spans += scope.spans
            self.came.set()
        return web.Response(status=self._status)

    async def until(self, name: str) -> None:
        """Wait until a span of that name has come."""
        while not any(span.name == name for span in self.spans):
            self.came.clear()
            await self.came.wait()
