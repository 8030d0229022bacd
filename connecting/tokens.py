"""Tokens that say who we are, for SASL's OAUTHBEARER (RFC 7628), and who provides them.

A provider is found by name: one of ours, or one that a package brings as an entry point in the
group "aril.token_providers". It is called with the settings and returns a `TokenProvider`.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from aril.connecting.errors import SecurityError, TokenError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pydantic import SecretStr

GROUP: Final = "aril.token_providers"

# Ours are found without an entry point: run from its source, a package has none.
BUILT_IN: Final = {
    "file": "aril.connecting.token_file:FileTokens",
    "oidc": "aril.connecting.oidc:OidcTokens",
}

_BEARER: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750, 2.1
_JWT_PARTS: Final = 3
MAX_TOKEN_CHARACTERS: Final = 65_536


class Token(NamedTuple):
    """What is shown to a broker, and until when it is good in seconds since the epoch, if known."""

    value: str
    expires_at: float | None

    def __repr__(self) -> str:
        return f"<Token until {self.expires_at}>"  # a token is a secret

    @classmethod
    def of(cls, text: str, expires_at: float | None = None) -> Token:
        """Take a token; a JWT says itself when it expires. Raises TokenError."""
        text = text.strip()
        # Anything else could end the message that carries it, and begin another.
        if len(text) > MAX_TOKEN_CHARACTERS or not _BEARER.fullmatch(text):
            raise TokenError("what is there is no bearer token")
        return cls(text, expiry_of(text) if expires_at is None else expires_at)


class TokenSettings(Protocol):
    """What a provider is made with: all settings, of which ours need these."""

    @property
    def sasl_token_file(self) -> Path | None:
        """Where the provider `file` reads."""

    @property
    def sasl_oidc_url(self) -> str | None:
        """Where the provider `oidc` asks."""

    @property
    def sasl_oidc_client_id(self) -> str | None:
        """Who asks there."""

    @property
    def sasl_oidc_client_secret(self) -> SecretStr | None:
        """What proves it."""

    @property
    def sasl_oidc_scope(self) -> str | None:
        """What is asked for."""


class TokenProvider(Protocol):
    """Where tokens come from."""

    async def token(self) -> Token:
        """Return a token that is good now; asked before each connection, so keep what is good.

        Raises TokenError, OSError or TimeoutError where there is none: it is asked again later.
        """


def expiry_of(token: str) -> float | None:
    """Return the `exp` of a JWT in seconds since the epoch; None where there is none to read.

    Nothing is verified: that is for the broker.
    """
    parts = token.split(".")
    if len(parts) != _JWT_PARTS:
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        return None
    found = claims.get("exp") if isinstance(claims, dict) else None
    if isinstance(found, bool) or not isinstance(found, int | float):
        return None
    try:
        expires_at = float(found)
    except OverflowError:
        return None
    return expires_at if math.isfinite(expires_at) else None


def find_provider(name: str, settings: TokenSettings) -> TokenProvider:
    """Make the provider of this name. Raises SecurityError."""
    return _maker(name)(settings)


def _maker(name: str) -> Callable[[TokenSettings], TokenProvider]:
    made: Any
    if name in BUILT_IN:
        module, _, attribute = BUILT_IN[name].partition(":")
        made = getattr(import_module(module), attribute)
        return made  # type: ignore[no-any-return] # what a name in a table leads to
    installed = {each.name: each for each in entry_points(group=GROUP)}
    if name not in installed:
        known = ", ".join(sorted(BUILT_IN | installed.keys()))
        raise SecurityError(f"sasl_token_provider={name}: there is none of that name, only {known}")
    try:
        made = installed[name].load()
    except (ImportError, AttributeError) as error:
        raise SecurityError(f"sasl_token_provider={name}: {error}") from None
    return made  # type: ignore[no-any-return] # same
