"""Tokens from an OpenID provider, for a program's own credentials (RFC 6749, 4.4)."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote_plus, urlsplit

from aril.connecting.errors import SecurityError, TokenError
from aril.connecting.tokens import MAX_TOKEN_CHARACTERS, Token

if TYPE_CHECKING:
    from aril.connecting.tokens import TokenSettings

ANSWER_SECONDS: Final = 10.0
MAX_ANSWER_BYTES: Final = 2 * MAX_TOKEN_CHARACTERS
OK: Final = 200
# Of a token's time: sessions are renewed when 5 to 15 % of it are left, by a token that lasts.
KEPT_UNTIL: Final = 0.25
_LOOPBACK: Final = {"localhost", "127.0.0.1", "::1"}


class OidcTokens:
    """Asks the token endpoint, and keeps what it gave for most of its time."""

    def __init__(self, settings: TokenSettings) -> None:
        """Take address and credentials from the settings. Raises SecurityError."""
        url, secret = settings.sasl_oidc_url, settings.sasl_oidc_client_secret
        if url is None or settings.sasl_oidc_client_id is None or secret is None:
            raise SecurityError("sasl_token_provider=oidc needs sasl_oidc_url, _client_id, _secret")
        try:
            place = urlsplit(url)
            host = place.hostname
        except ValueError:
            place, host = None, None
        if place is None or not host or not _is_private(place.scheme, host):
            raise SecurityError("sasl_oidc_url: must be https://…, or http://… on this machine")
        self._url, self._host = url, host
        who = ":".join(map(quote_plus, (settings.sasl_oidc_client_id, secret.get_secret_value())))
        self._headers = {"Authorization": f"Basic {base64.b64encode(who.encode()).decode()}"}
        self._form = {"grant_type": "client_credentials"}
        if settings.sasl_oidc_scope is not None:
            self._form["scope"] = settings.sasl_oidc_scope
        self._kept: Token | None = None
        self._given_at = 0.0
        self._asking: asyncio.Lock | None = None

    async def token(self) -> Token:
        """See TokenProvider."""
        self._asking = self._asking or asyncio.Lock()
        async with self._asking:  # many connections begin at once
            kept, now = self._kept, time.time()
            if kept is not None and _left(kept, self._given_at, now) > KEPT_UNTIL:
                return kept
            try:
                self._kept, self._given_at = await self._ask(now), now
            except TokenError:
                if kept is None or _left(kept, self._given_at, now) <= 0:
                    raise
                return kept  # good for a while yet, and asked for again by then
            return self._kept

    async def _ask(self, now: float) -> Token:
        import aiohttp  # noqa: PLC0415 - 0.2 s, only for those who need it

        limit = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
        try:
            async with (
                aiohttp.ClientSession(timeout=limit, headers=self._headers) as session,
                # Led elsewhere, the secret would go there.
                session.post(self._url, data=self._form, allow_redirects=False) as answer,
            ):
                status, body = answer.status, b""
                async for part in answer.content.iter_any():
                    body += part
                    if len(body) > MAX_ANSWER_BYTES:
                        raise TokenError(f"{self._host} answers at too great length")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise TokenError(f"{self._host}: {type(error).__name__}") from None
        if status != OK:
            raise TokenError(f"{self._host} answers {status}")
        return _read(body, self._host, now)


def _is_private(scheme: str, host: str) -> bool:
    return scheme == "https" or (scheme == "http" and host in _LOOPBACK)


def _left(token: Token, given_at: float, now: float) -> float:
    """Return which share of a token's time is left; one that does not say is used once."""
    if token.expires_at is None or token.expires_at <= given_at:
        return 0.0
    return (token.expires_at - now) / (token.expires_at - given_at)


def _read(body: bytes, host: str, now: float) -> Token:
    try:
        found: Any = json.loads(body)
        seconds = found.get("expires_in")
        known = isinstance(seconds, int | float) and 0 < seconds < 1e9  # noqa: PLR2004 - 30 years
        return Token.of(found["access_token"], now + seconds if known else None)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, TokenError):
        raise TokenError(f"{host} answers with no bearer token") from None
