"""What a client is made with, out of the settings that workers and clients share."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from aril.connecting.errors import SecurityError
from aril.connecting.settings import ConnectionSettings
from aril.errors import BadSetting
from aril.schemas import is_tenant

if TYPE_CHECKING:
    from pathlib import Path


def options_of(
    settings: ConnectionSettings, tenant: str, key: Path | str | None = None
) -> dict[str, Any]:
    """Return the arguments of a tenant's `Client`; `key` is the file to sign jobs with, if any.

    Raises BadSetting where a file that is named cannot be used, BadKey where the key cannot.
    """
    signer = None
    if key:
        from aril.signer import Signer  # noqa: PLC0415 - cryptography, only for those who sign

        signer = Signer.from_file(key)
    try:
        security = settings.kafka_security()
    except SecurityError as error:
        raise BadSetting(str(error)) from None
    return {
        "bootstrap": settings.bootstrap,
        "tenant": tenant,
        "jobs_topic": settings.jobs_topic_of(tenant),
        "replies_prefix": settings.replies_prefix,
        "security": security,
        "signer": signer,
    }


def options_from_env(tenant: str | None = None) -> dict[str, Any]:
    """Return the same out of `ARIL_*` variables. Raises BadSetting, with one line, or BadKey."""
    who = tenant or os.environ.get("ARIL_TENANT")
    if not who:
        raise BadSetting("ARIL_TENANT is not set, and no tenant was named")
    if not is_tenant(who):
        raise BadSetting(f"{who!r} is not a tenant's name (lower case, digits, -)")
    try:
        settings = ConnectionSettings.from_env()
    except SecurityError as error:
        raise BadSetting(str(error)) from None
    return options_of(settings, who, os.environ.get("ARIL_KEY"))
