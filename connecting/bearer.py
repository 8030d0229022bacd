"""A token provider as aiokafka asks for one."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final

from aiokafka import errors
from aiokafka.abc import AbstractTokenProvider

from aril.connecting.errors import TokenError

if TYPE_CHECKING:
    from aril.connecting.tokens import TokenProvider

log: Final = logging.getLogger(__name__)

AGAIN_SECONDS: Final = 1.0  # until a provider that has failed is asked again


class Bearer(AbstractTokenProvider):  # type: ignore[misc] # aiokafka is untyped
    """Hands a provider's tokens to aiokafka, and keeps in mind when the last one expires.

    aiokafka tries to connect a hundred times a second while it cannot: a provider that has failed
    is asked again, and complained of, once in a while.
    """

    def __init__(self, provider: TokenProvider) -> None:
        self._provider = provider
        self._expires_at: float | None = None
        self._failure = ""
        self._ask_at = 0.0

    async def token(self) -> str:
        """Return a token. Raises KafkaError, all that aiokafka expects of a connection."""
        if time.monotonic() < self._ask_at:
            raise errors.KafkaConnectionError(self._failure)
        try:
            token = await self._provider.token()
        except (TokenError, OSError, TimeoutError) as error:
            self._failure = f"no token for the brokers: {str(error) or type(error).__name__}"
            self._ask_at = time.monotonic() + AGAIN_SECONDS
            log.warning(self._failure)
            raise errors.KafkaConnectionError(self._failure) from None
        self._expires_at = token.expires_at
        return token.value

    @property
    def seconds_left(self) -> float | None:
        """For how long the last token is good; None where nobody says."""
        return None if self._expires_at is None else self._expires_at - time.time()
