"""What can be wrong with how brokers are to be reached."""

from __future__ import annotations


class SecurityError(ValueError):
    """A file or a provider that a setting names cannot be used; the message is one line."""


class TokenError(Exception):
    """There is no token to show to a broker now; the message is one line and holds no secret."""
