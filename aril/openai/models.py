"""What `model` names: the backbone, or one of the tenant's adapters on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aril.openai.errors import Refused
from aril.schemas import ErrorCode, is_adapter, limits

if TYPE_CHECKING:
    from collections.abc import Collection

BACKBONE: Final = "aril"
"""The backbone, whatever it is."""


def adapter_of(model: str, bases: Collection[str] = ()) -> str | None:
    """Return the adapter that `model` names, None for the bare backbone.

    `bases` are the backbone's names beside `aril`. An adapter is `terse`, `terse@<digest>`, or
    either behind the backbone's name and a colon. Raises `Refused`, as for an unknown adapter.
    """
    if model == BACKBONE or model in bases:
        return None
    base, colon, adapter = model.rpartition(":")
    if is_adapter(adapter) and (not colon or base == BACKBONE or base in bases):
        return adapter
    told = model[: limits.MAX_GIVEN_CHARS]
    known = ", ".join(sorted({BACKBONE, *bases})[:8])
    raise Refused(
        f"model: neither the backbone ({known}) nor an adapter's name",
        param="model",
        code=ErrorCode.UNKNOWN_ADAPTER,
        given=told,
    )
