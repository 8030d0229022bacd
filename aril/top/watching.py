"""Asking workers for their pages, all at once, again and again."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final, Self

import aiohttp

from aril.top.page import Page, Span
from aril.top.view import group_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from aril.address import Address
    from aril.top.view import Group

PATIENCE_SECONDS: Final = 5.0
MAX_PAGE_BYTES: Final = 8 << 20


class Watch:
    """The workers at some addresses. An async context manager."""

    def __init__(self, addresses: Sequence[Address]) -> None:
        self._addresses = addresses
        self._last: dict[Address, tuple[Page, float]] = {}
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        timeout = aiohttp.ClientTimeout(total=PATIENCE_SECONDS)
        self._session = aiohttp.ClientSession(timeout=timeout, headers={"Accept": "text/plain"})
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def look(self) -> Group:
        """Ask every worker; rates are since its last answer."""
        spans = await asyncio.gather(*map(self._span, self._addresses))
        return group_of(dict(zip(map(str, self._addresses), spans, strict=True)))

    async def _span(self, address: Address) -> Span | str:
        try:
            page = Page.parse(await self._fetch(address))
        except TimeoutError:
            return "no answer in time"
        except aiohttp.ClientResponseError as error:
            return f"{error.status} {error.message}"
        except (aiohttp.ClientError, OSError) as error:
            return f"nobody answers ({type(error).__name__})"
        except ValueError:
            return "its page is no metrics of a worker"
        now = time.monotonic()
        before, at = self._last.get(address, (None, now))
        self._last[address] = page, now
        return Span(before, page, now - at)

    async def _fetch(self, address: Address) -> str:
        """Return a worker's page. Raises aiohttp's ClientError, TimeoutError, ValueError."""
        assert self._session is not None, "it is entered"  # noqa: S101 - ours
        async with self._session.get(f"http://{address}/metrics") as answer:
            answer.raise_for_status()
            body = b""
            async for part in answer.content.iter_any():
                body += part
                if len(body) > MAX_PAGE_BYTES:
                    raise ValueError("too long")
        return body.decode()
