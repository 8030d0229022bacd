"""A token in a file that somebody keeps fresh, as Kubernetes projects those of service accounts."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from aril.connecting.errors import SecurityError, TokenError
from aril.connecting.tokens import MAX_TOKEN_CHARACTERS, Token

if TYPE_CHECKING:
    from aril.connecting.tokens import TokenSettings


class FileTokens:
    """Reads the file each time: it is small, and at hand."""

    def __init__(self, settings: TokenSettings) -> None:
        """Take the file's place from the settings; it may come into being later."""
        if settings.sasl_token_file is None:
            raise SecurityError("sasl_token_provider=file needs sasl_token_file")
        self._path = settings.sasl_token_file

    async def token(self) -> Token:
        """See TokenProvider."""
        try:
            token = Token.of(await asyncio.to_thread(self._read))
        except OSError as error:
            raise TokenError(f"sasl_token_file: {self._path}: {error.strerror}") from None
        except (TokenError, UnicodeDecodeError):
            raise TokenError(f"sasl_token_file: {self._path}: no bearer token is in it") from None
        if token.expires_at is not None and token.expires_at <= time.time():
            raise TokenError(f"sasl_token_file: {self._path}: the token in it has expired")
        return token

    def _read(self) -> str:
        with self._path.open(encoding="ascii") as file:
            return file.read(MAX_TOKEN_CHARACTERS + 2)  # the end of a line is no part of it
