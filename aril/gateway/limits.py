"""What one key may ask for: requests a second, and answers at the same time."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from aril.schemas import ErrorCode, JobError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from aril.gateway.keys import Caller

MS = 1_000


class _Use:
    """What a key has used."""

    __slots__ = ("at", "streams", "tokens")

    def __init__(self, tokens: float, at: float) -> None:
        self.tokens = tokens
        self.at = at
        self.streams = 0


class Limits:
    """Counts what each key uses, in memory: of this gateway alone."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._uses: dict[str, _Use] = {}

    def request(self, caller: Caller) -> None:
        """Count one request. Raises `JobError` (overloaded), with when to come again.

        A bucket of a second's requests, at least one, that fills at the caller's rate.
        """
        rate = caller.requests_per_second
        if rate is None:
            return
        use, most, now = self._use(caller), max(1.0, rate), self._clock()
        use.tokens = min(most, use.tokens + (now - use.at) * rate)
        use.at = now
        if use.tokens < 1.0:
            wait = (1.0 - use.tokens) / rate
            text = f"this key may send {rate:g} requests a second"
            raise JobError(
                ErrorCode.OVERLOADED, text, limit=rate, retry_after_ms=max(1, int(wait * MS + 1))
            )
        use.tokens -= 1.0

    @contextmanager
    def streams(self, caller: Caller, answers: int) -> Iterator[None]:
        """Count answers that are being read. Raises `JobError`: overloaded, or as `fit`."""
        if caller.streams is None:
            yield
            return
        fit(answers, caller.streams, "this key may read")
        use = self._use(caller)
        if use.streams + answers > caller.streams:
            text = f"this key may read {caller.streams} answers at the same time"
            given = use.streams + answers
            raise JobError(
                ErrorCode.OVERLOADED, text, limit=caller.streams, given=given, retry_after_ms=MS
            )
        use.streams += answers
        try:
            yield
        finally:
            use.streams -= answers

    def _use(self, caller: Caller) -> _Use:
        use = self._uses.get(caller.sha256)
        if use is None:
            full = max(1.0, caller.requests_per_second or 0.0)
            use = self._uses[caller.sha256] = _Use(full, self._clock())
        return use


def fit(answers: int, most: int, who: str) -> None:
    """Raise `JobError` (limit_exceeded) for a request that would not fit if it came again."""
    if answers > most:
        text = f"{who} {most} answers at the same time"
        raise JobError(ErrorCode.LIMIT_EXCEEDED, text, limit=most, given=answers)
