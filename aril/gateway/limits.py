"""What one key may ask for: requests a second, and answers at the same time."""

from __future__ import annotations

import math
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from aril.gateway.failures import Refusal
from aril.schemas import ErrorCode, JobError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from aril.gateway.keys import Caller

MS: Final = 1_000
STATUS: Final = 429
CODE: Final = "rate_limit_exceeded"
"""OpenAI's word. What the queue refuses is `overloaded`, and has ended the job."""


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
        """Count one request. Raises `Refusal` (429), with when to come again.

        A bucket of a second's requests, at least one, that fills at the caller's rate.
        """
        rate = caller.requests_per_second
        if rate is None:
            return
        use = self._filled(caller, rate)
        if use.tokens < 1.0:
            wait = (1.0 - use.tokens) / rate
            text = f"this key may send {rate:g} requests a second"
            raise Refusal(STATUS, text, code=CODE, limit=rate, retry_after_ms=int(wait * MS + 1))
        use.tokens -= 1.0

    @contextmanager
    def streams(self, caller: Caller, answers: int) -> Iterator[None]:
        """Count answers that are being read. Raises `Refusal` (429), `JobError` as `fit`."""
        if caller.streams is None:
            yield
            return
        fit(answers, caller.streams, "this key may read")
        use = self._use(caller)
        if use.streams + answers > caller.streams:
            text = f"this key may read {caller.streams} answers at the same time"
            given = use.streams + answers
            raise Refusal(
                STATUS, text, code=CODE, limit=caller.streams, given=given, retry_after_ms=MS
            )
        use.streams += answers
        try:
            yield
        finally:
            use.streams -= answers

    def headers(self, caller: Caller) -> dict[str, str]:
        """Return what is left of a key's requests, by OpenAI's names; empty without a rate.

        The limit is what the bucket holds, the reset when it is full again. No client waits by
        these: they are for whoever paces its requests.
        """
        rate = caller.requests_per_second
        if rate is None:
            return {}
        use, most = self._filled(caller, rate), max(1.0, rate)
        return {
            "x-ratelimit-limit-requests": str(int(most)),
            "x-ratelimit-remaining-requests": str(int(use.tokens)),
            "x-ratelimit-reset-requests": _duration((most - use.tokens) / rate),
        }

    def _filled(self, caller: Caller, rate: float) -> _Use:
        use, now = self._use(caller), self._clock()
        use.tokens = min(max(1.0, rate), use.tokens + (now - use.at) * rate)
        use.at = now
        return use

    def _use(self, caller: Caller) -> _Use:
        use = self._uses.get(caller.sha256)
        if use is None:
            full = max(1.0, caller.requests_per_second or 0.0)
            use = self._uses[caller.sha256] = _Use(full, self._clock())
        return use


def _duration(seconds: float) -> str:
    """Return a time as OpenAI's headers write it: `12ms`, `1s`, `6m0s`; rounded up."""
    ms = math.ceil(seconds * MS)
    if ms < MS:
        return f"{ms}ms"
    minutes, left = divmod(-(-ms // MS), 60)
    hours, minutes = divmod(minutes, 60)
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if hours or minutes else "") + f"{left}s"


def fit(answers: int, most: int, who: str) -> None:
    """Raise `JobError` (limit_exceeded) for a request that would not fit if it came again."""
    if answers > most:
        text = f"{who} {most} answers at the same time"
        raise JobError(ErrorCode.LIMIT_EXCEEDED, text, limit=most, given=answers)
