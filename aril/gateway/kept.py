"""What `/v1/files` and `/v1/batches` share: the folder, pages of a list, what is not there."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from starlette.exceptions import HTTPException

from aril.gateway.failures import Refusal
from aril.gateway.site import AGAIN, STOPPING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from starlette.datastructures import QueryParams
    from starlette.requests import Request
    from starlette.responses import Response

    from aril.gateway.site import Site
    from aril.gateway.stored.store import Store

    Handler = Callable[[Request], Awaitable[Response]]

log = logging.getLogger(__name__)

NOT_SERVED: Final = "this gateway keeps no files: ARIL_GATEWAY_BATCHES names a folder for them"
_NUMBER: Final = re.compile(r"\d{1,9}", re.ASCII)
ORDERS: Final = ("asc", "desc")


def on_folder(handle: Handler) -> Handler:
    """Answer 503 where the folder cannot be read or written: a full disk, a server that is away."""

    async def handled(request: Request) -> Response:
        try:
            return await handle(request)
        except OSError as error:
            log.warning("files_unreachable", extra={"error": error.strerror})
            raise HTTPException(503, "files cannot be read or written now", AGAIN) from None

    return handled


def store_of(site: Site) -> Store:
    """Return the folder. Raises `Refusal` where there is none."""
    if site.store is None:
        raise Refusal(404, NOT_SERVED, code="not_served")
    return site.store


def taking(site: Site) -> None:
    """Raise HTTPException 503 while nothing new is taken."""
    if site.draining.is_set():
        raise HTTPException(503, STOPPING, AGAIN | {"connection": "close"})


def not_there(what: str) -> Refusal:
    """Return what is told of another tenant's, too."""
    return Refusal(404, f"no such {what}", code="not_found", param=f"{what}_id")


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list: so many behind one, the newest or the oldest first."""

    limit: int
    after: str | None
    order: str

    def of(
        self,
        newest_first: Callable[[], Sequence[str]],
        read: Callable[[str], dict[str, Any] | None],
    ) -> dict[str, Any]:
        """Return the page in OpenAI's form; what `read` has nothing of is passed over.

        An `after` that is there no more is a place all the same: ids sort by time.
        """
        names = newest_first()
        found: list[dict[str, Any]] = []
        for name in names if self.order == "desc" else reversed(names):
            if self.after is not None and not self._is_behind(name, self.after):
                continue
            if (told := read(name)) is not None:
                found.append(told)
                if len(found) > self.limit:
                    break
        data = found[: self.limit]
        return {
            "object": "list",
            "data": data,
            "first_id": data[0]["id"] if data else None,
            "last_id": data[-1]["id"] if data else None,
            "has_more": len(found) > self.limit,
        }

    def _is_behind(self, name: str, after: str) -> bool:
        return name < after if self.order == "desc" else name > after


def page_of(query: QueryParams, *, default: int, most: int) -> Page:
    """Return what a query asks for. Raises `Refusal`."""
    limit = number_of(query.get("limit"), "limit", (1, most), default)
    order = query.get("order", "desc")
    if order not in ORDERS:
        raise Refusal(400, "order: must be asc or desc", code="invalid_job", param="order")
    return Page(limit, query.get("after"), order)


def number_of(text: str | None, name: str, bounds: tuple[int, int], default: int) -> int:
    """Return a number that a caller has said. Raises `Refusal`."""
    if text is None:
        return default
    low, high = bounds
    if not _NUMBER.fullmatch(text) or not low <= int(text) <= high:
        raise Refusal(
            400, f"{name}: must be a number from {low} to {high}", code="invalid_job", param=name
        )
    return int(text)
