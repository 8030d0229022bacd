"""Tokens for librdkafka, which asks for them from threads of its own and waits for the answer."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final, Self

from aiokafka import errors

from aril.connecting.errors import TokenError
from aril.connecting.tokens import find_provider

if TYPE_CHECKING:
    from aril.connecting.tokens import Token, TokenProvider
    from aril.worker.settings import WorkerSettings

ANSWER_SECONDS: Final = 30.0
GOOD_SECONDS: Final = 300.0  # of a token that does not say: then another is asked for


class Tokens:
    """Hands a provider's tokens to librdkafka's `oauth_cb`.

    The first is fetched before librdkafka is made, since its constructor blocks the event loop
    until it has one.
    """

    def __init__(self, provider: TokenProvider, first: Token) -> None:
        self._provider = provider
        self._first: Token | None = first
        self._loop = asyncio.get_running_loop()

    @classmethod
    async def of(cls, settings: WorkerSettings) -> Self:
        """Return those of the provider that is set. Raises KafkaError where there is none now."""
        provider = find_provider(settings.sasl_token_provider or "", settings)
        try:
            return cls(provider, await provider.token())
        except (TokenError, OSError, TimeoutError) as error:
            raise errors.KafkaConnectionError(f"no token for the brokers: {error}") from None

    def __call__(self, _: str) -> tuple[str, float]:
        """Return a token and when it expires, in seconds since the epoch."""
        token, self._first = self._first, None
        if token is None:
            asked = asyncio.run_coroutine_threadsafe(self._ask(), self._loop)
            token = asked.result(ANSWER_SECONDS)
        return token.value, token.expires_at or time.time() + GOOD_SECONDS

    async def _ask(self) -> Token:
        return await self._provider.token()
