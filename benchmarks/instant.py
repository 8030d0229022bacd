"""An engine that costs nothing, so that what is measured is the way to it and from it.

Each token's text is the moment it was made, in nanoseconds of the machine's monotonic clock: a
reader on the same machine can tell how long the token was on its way.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from aril.worker.engine.request import GenerationRequest, Output
from aril.worker.job import Prompt
from aril.worker.loading import Loaded

if TYPE_CHECKING:
    from aril.schemas import Job
    from aril.worker.settings import WorkerSettings


class InstantEngine:
    """One token a row a step; a step lasts ``pace`` seconds, or no time at all."""

    def __init__(self, rows: int, pace: float = 0.0) -> None:
        self._rows = rows
        self._pace = pace
        self._left: dict[int, int] = {}
        self._due = 0.0

    @property
    def has_work(self) -> bool:
        """Whether a step would bring anything."""
        return bool(self._left)

    def submit(self, request: GenerationRequest) -> None:
        """Take a request; one that was taken over goes on behind its visible tokens."""
        self._left[request.key] = request.sampling.longest - len(request.resume_ids)

    def cancel(self, key: int) -> None:
        """Drop a request."""
        self._left.pop(key, None)

    def step(self) -> list[Output]:
        """Bring one token for each of the first rows."""
        if self._pace:
            now = time.monotonic()
            self._due = max(self._due, now) + self._pace
            time.sleep(self._due - now)
        made = f"{time.monotonic_ns()} "
        outputs = []
        for key in list(self._left)[: self._rows]:
            self._left[key] -= 1
            if self._left[key] < 0:  # all its tokens were visible already
                del self._left[key]
                outputs.append(Output(key, finish="length"))
            elif self._left[key]:
                outputs.append(Output(key, (1,), made))
            else:
                del self._left[key]
                outputs.append(Output(key, (1,), made, finish="length"))
        return outputs


class LengthPrompts:
    """A prompt of one token, whatever it says."""

    def encode(self, job: Job, rendered: str | None = None, **_: object) -> Prompt:  # noqa: ARG002
        """Return one token."""
        return Prompt((1,), job.sampling.longest)


def load_instant(settings: WorkerSettings, pace: float = 0.0) -> Loaded:
    """Return what a worker needs to answer at once."""
    return Loaded(InstantEngine(settings.max_rows, pace), LengthPrompts(), None, "instant")
