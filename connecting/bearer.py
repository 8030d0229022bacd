"""A token provider as aiokafka asks for one."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from aiokafka import errors
from aiokafka.abc import AbstractTokenProvider

from connecting.errors import TokenError

if TYPE_CHECKING:
    from connecting.tokens import TokenProvider

log = logging.getLogger(__name__)


class Bearer(AbstractTokenProvider):  # type: ignore[misc] # aiokafka is untyped
    """Hands a provider's tokens to aiokafka, and keeps in mind when the last one expires."""

    def __init__(self, provider: TokenProvider) -> None:
        self._provider = provider
        self._expires_at: float | None = None

    async def token(self) -> str:
        """Return a token. Raises KafkaError, all that aiokafka expects of a connection."""
        try:
            token = await self._provider.token()
        except (TokenError, OSError, TimeoutError) as error:
            why = str(error) or type(error).__name__
            log.warning("no token for the brokers: %s", why)
            raise errors.KafkaConnectionError(f"no token for the brokers: {why}") from None
        self._expires_at = token.expires_at
        return token.value

    @property
    def seconds_left(self) -> float | None:
        """For how long the last token is good; None where nobody says."""
        return None if self._expires_at is None else self._expires_at - time.time()
