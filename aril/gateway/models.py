"""`/v1/models`: the backbone, and the adapters that the tenant who asks may name.

What a folder of the store holds is not read, only that it is one: its digest, which workers know
once they have hashed it, is not told here. Each answer names it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, NotRequired, TypedDict

from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from aril.gateway.failures import Refusal
from aril.gateway.site import site_of
from aril.openai.models import BACKBONE
from aril.schemas import SHARED, ErrorCode, is_adapter

if TYPE_CHECKING:
    from pathlib import Path

    from starlette.requests import Request

    from aril.gateway.site import Site

CONFIG: Final = "adapter_config.json"
MOST: Final = 10_000
"""Adapters of one owner that are listed; more can be asked all the same."""


class Model(TypedDict):
    """A model in OpenAI's form; `parent` is vLLM's: what an adapter is for."""

    id: str
    object: str
    created: int
    owned_by: str
    parent: NotRequired[str]


async def listed(request: Request) -> Response:
    """`/v1/models`."""
    site = site_of(request)
    models = await _models(site, site.caller(request).tenant)
    return JSONResponse({"object": "list", "data": models})


async def one(request: Request) -> Response:
    """`/v1/models/{id}`."""
    site = site_of(request)
    wanted = request.path_params["id"]
    for model in await _models(site, site.caller(request).tenant):
        if model["id"] == wanted:
            return JSONResponse(model)
    raise Refusal(404, "no such model", code=ErrorCode.UNKNOWN_ADAPTER.value, param="model")


async def _models(site: Site, tenant: str) -> list[Model]:
    settings = site.settings
    names = dict.fromkeys([BACKBONE, settings.gateway_model])
    models = [Model(id=name, object="model", created=0, owned_by=BACKBONE) for name in names]
    if settings.gateway_adapters is None:
        return models
    found = await asyncio.to_thread(adapters_of, settings.gateway_adapters, tenant)
    return models + [
        Model(
            id=name, object="model", created=created, owned_by=owner, parent=settings.gateway_model
        )
        for name, (created, owner) in sorted(found.items())
    ]


def adapters_of(store: Path, tenant: str) -> dict[str, tuple[int, str]]:
    """Return when each adapter came, and whose it is; a tenant's own goes before a shared one."""
    found: dict[str, tuple[int, str]] = {}
    for owner in (SHARED, tenant):
        try:
            folders = sorted(each.name for each in (store / owner).iterdir())
        except OSError:  # none of its own, or no store: then there is nothing to name
            continue
        for name in folders[:MOST]:
            try:
                if is_adapter(name) and "@" not in name:
                    made = (store / owner / name / CONFIG).stat().st_mtime
                    found[name] = (int(made), owner)
            except OSError:
                continue
    return found


ROUTES: Final = (Route("/v1/models", listed), Route("/v1/models/{id:path}", one))
