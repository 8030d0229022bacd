"""What each tenant may use of a worker: a TOML file, read again when it changes.

    [default]                 # every tenant that is not named, and what a named one leaves out
    jobs_per_second = 20
    [tenants.acme]
    weight = 4

A file that cannot be read, or says something that is no limit, keeps a worker from starting. Later
on what was known stays: limits do not vanish because somebody is editing them.
"""

from __future__ import annotations

import asyncio
import tomllib
from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from aril.schemas import is_tenant
from aril.worker.observe.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

log = get_logger(__name__)

RELOAD_SECONDS: Final = 5.0
MAX_FILE_BYTES: Final = 16 << 20

Count = Annotated[int, Field(ge=1, le=1 << 31)]
Rate = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]


class TenantLimitsError(Exception):
    """The file cannot be used; the message is one line."""


class TenantLimit(BaseModel):
    """One tenant's limits in one worker; None: none."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    weight: Annotated[float, Field(gt=0, le=1_000, allow_inf_nan=False)] = 1.0
    rows: Count | None = None  # jobs that run at the same time
    adapters: Count | None = None  # distinct ones of the jobs that run
    waiting_jobs: Count | None = None
    waiting_bytes: Count | None = None
    jobs_per_second: Rate | None = None
    tokens_per_second: Rate | None = None  # of prompts and answers
    burst_seconds: Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)] = 10.0
    over: Literal["refuse", "wait"] = "refuse"  # what becomes of jobs beyond a rate


class TenantLimits:
    """The limits in use. Lives on the event loop."""

    def __init__(self, path: Path | None = None) -> None:
        """Read the file, if there is one. Raises TenantLimitsError."""
        self._path = path
        self._default = TenantLimit()
        self._named: dict[str, TenantLimit] = {}
        self._text = b""
        self._failure: str | None = None
        if path is not None:
            self._take(_read(path))

    def of(self, tenant: str) -> TenantLimit:
        """Return a tenant's limits."""
        return self._named.get(tenant, self._default)

    def weight(self, tenant: str) -> float:
        """Return how much more than others a tenant may have."""
        return self.of(tenant).weight

    async def watch(self) -> None:
        """Read the file again and again, in a thread: its storage may be slow."""
        assert self._path is not None, "there is a file to watch"  # noqa: S101 - ours
        while True:
            await asyncio.sleep(RELOAD_SECONDS)
            await self.reload()

    async def reload(self) -> None:
        """Read the file again; what is wrong with it is logged once."""
        assert self._path is not None, "there is a file to read"  # noqa: S101 - ours
        try:
            text = await asyncio.to_thread(_read, self._path)
            if text != self._text:
                self._take(text)
                log.info("tenant_limits", tenants=len(self._named))
        except TenantLimitsError as error:
            if str(error) != self._failure:
                log.error("tenant_limits_unusable", error=str(error), kept=len(self._named))  # noqa: TRY400 - one line is meant for a person
            self._failure = str(error)
        else:
            self._failure = None

    def _take(self, text: bytes) -> None:
        self._default, self._named = parse(text)
        self._text = text


def parse(text: bytes) -> tuple[TenantLimit, dict[str, TenantLimit]]:
    """Return the default limits and those of the tenants that are named.

    Raises TenantLimitsError.
    """
    try:
        told = tomllib.loads(text.decode())
    except RecursionError:
        raise TenantLimitsError("limits: not TOML: nested too deep") from None
    except ValueError as error:
        raise TenantLimitsError(f"limits: not TOML: {error}") from None
    for name in told:
        if name not in {"default", "tenants"}:
            raise TenantLimitsError(f"limits: {name!a}: only default and tenants.<name> are known")
    default = _table(told.get("default", {}), "default")
    tenants = _table(told.get("tenants", {}), "tenants")
    named = {}
    for tenant, own in tenants.items():
        if not is_tenant(tenant):
            raise TenantLimitsError(f"limits: tenants.{tenant!a} is no tenant's name")
        where = f"tenants.{tenant}"
        named[tenant] = _limit(default | _table(own, where), where)
    return _limit(default, "default"), named


def _table(value: object, where: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise TenantLimitsError(f"limits: {where}: not a table")
    return value


def _limit(told: Mapping[str, object], where: str) -> TenantLimit:
    try:
        return TenantLimit.model_validate(told, strict=True)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        name = ".".join([where, *map(str, first["loc"][:1])])
        raise TenantLimitsError(f"limits: {name}: {first['msg']}") from None


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            text = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise TenantLimitsError(f"limits: {path}: {error.strerror}") from None
    if len(text) > MAX_FILE_BYTES:
        raise TenantLimitsError(f"limits: {path}: more than {MAX_FILE_BYTES} bytes")
    return text
