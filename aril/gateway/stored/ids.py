"""Ids of files and batches: they sort by when they were made, and nobody guesses one."""

from __future__ import annotations

import re
import secrets
import time
from typing import Final

FILE: Final = "file-"
BATCH: Final = "batch_"
_REST: Final = re.compile(r"[0-9a-f]{32}")
_NAME_DIGITS: Final = 15


def new_id(prefix: str) -> str:
    """Return an id: microseconds since 1970 in 14 digits, and 72 random bits."""
    return f"{prefix}{time.time_ns() // 1_000:014x}{secrets.token_hex(9)}"


def is_id(text: str, prefix: str) -> bool:
    """Whether a text can be an id; what cannot is never made part of a path."""
    return text.startswith(prefix) and _REST.fullmatch(text, len(prefix)) is not None


def name_of(batch: str) -> str:
    """Return what the ids of a batch's jobs begin with: the same, whoever works on it."""
    return f"b{batch[-_NAME_DIGITS:]}"
