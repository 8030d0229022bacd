"""What a tenant's program and an operator touch: the client, its events and errors, the CLI.

Everything public is here and is imported when it is first used, so that `aril --help` is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from aril.blocking import Client as BlockingClient
    from aril.client import Client
    from aril.connection import Connection
    from aril.errors import (
        ArilError,
        BadKey,
        BadSetting,
        BadToken,
        BrokerUnavailable,
        ClientClosed,
        JobConflict,
        JobFailed,
        JobTimeout,
        ReplyUnreadable,
        StreamLost,
        TextWithdrawn,
        TopicMissing,
    )
    from aril.schemas import (
        DoneEvent,
        ErrorCode,
        Event,
        Message,
        ResetEvent,
        Sampling,
        TokensEvent,
    )
    from aril.signer import Signer
    from aril.stream import Completion, ResumeToken, Stream

_HOMES: Final = {
    **dict.fromkeys(("Client",), "aril.client"),
    **dict.fromkeys(("BlockingClient",), "aril.blocking"),
    **dict.fromkeys(("Connection",), "aril.connection"),
    **dict.fromkeys(("Signer",), "aril.signer"),
    **dict.fromkeys(("Completion", "ResumeToken", "Stream"), "aril.stream"),
    **dict.fromkeys(
        (
            "ArilError",
            "BadKey",
            "BadSetting",
            "BadToken",
            "BrokerUnavailable",
            "ClientClosed",
            "JobConflict",
            "JobFailed",
            "JobTimeout",
            "ReplyUnreadable",
            "StreamLost",
            "TextWithdrawn",
            "TopicMissing",
        ),
        "aril.errors",
    ),
    **dict.fromkeys(
        (
            "DoneEvent",
            "ErrorCode",
            "Event",
            "Message",
            "ResetEvent",
            "Sampling",
            "TokensEvent",
        ),
        "aril.schemas",
    ),
}
_NAMES_AT_HOME: Final = {"BlockingClient": "Client"}

__all__ = [
    "ArilError",
    "BadKey",
    "BadSetting",
    "BadToken",
    "BlockingClient",
    "BrokerUnavailable",
    "Client",
    "ClientClosed",
    "Completion",
    "Connection",
    "DoneEvent",
    "ErrorCode",
    "Event",
    "JobConflict",
    "JobFailed",
    "JobTimeout",
    "Message",
    "ReplyUnreadable",
    "ResetEvent",
    "ResumeToken",
    "Sampling",
    "Signer",
    "Stream",
    "StreamLost",
    "TextWithdrawn",
    "TokensEvent",
    "TopicMissing",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(home), _NAMES_AT_HOME.get(name, name))
