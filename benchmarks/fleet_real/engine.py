"""An engine without a model whose every token tells whose it is, and torch is not imported."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from aril.schemas import ErrorCode, JobError
from aril.worker.engine.request import GenerationRequest, Output
from aril.worker.job import Prompt
from tests.support.fault_content import name_of, prompt_of, text_of, tokens_of

if TYPE_CHECKING:
    from aril.schemas import Job


class _Row(NamedTuple):
    tenant: str
    job: str
    begun: int  # tokens that are out
    whole: int


class TellingEngine:
    """One token a row a step of ``pace`` seconds, by `tests.support.fault_content`."""

    def __init__(self, rows: int, pace: float) -> None:
        self._rows = rows
        self._pace = pace
        self._running: dict[int, _Row] = {}
        self._due = 0.0

    @property
    def has_work(self) -> bool:
        """Whether a step would bring anything."""
        return bool(self._running)

    def submit(self, request: GenerationRequest) -> None:
        """Take a request. Raises JobError when the tokens to go on from are not its own."""
        tenant, job = name_of(request.prompt_ids)
        begun = len(request.resume_ids)
        if request.resume_ids != tokens_of(tenant, job, 0, begun):
            raise JobError(ErrorCode.INTERNAL, f"resumed with {begun} tokens that are not its own")
        self._running[request.key] = _Row(tenant, job, begun, request.sampling.longest)

    def cancel(self, key: int) -> None:
        """Drop a request."""
        self._running.pop(key, None)

    def step(self) -> list[Output]:
        """Bring one token for each of the first rows; that many only: others wait."""
        now = time.monotonic()
        self._due = max(self._due, now) + self._pace
        time.sleep(self._due - now)
        return [self._next(key) for key in [*self._running][: self._rows]]

    def _next(self, key: int) -> Output:
        tenant, job, begun, whole = row = self._running[key]
        stop = min(begun + 1, whole)
        ids, text = tokens_of(tenant, job, begun, stop), text_of(tenant, job, begun, stop)
        if stop == whole:
            del self._running[key]
            return Output(key, ids, text, finish="length")
        self._running[key] = row._replace(begun=stop)
        return Output(key, ids, text)


class NamePrompts:
    """A prompt is its job's name, whatever it says."""

    def encode(self, job: Job, rendered: str | None = None, **_: object) -> Prompt:  # noqa: ARG002
        """Return the name's bytes."""
        return Prompt(prompt_of(job.tenant, job.id), job.sampling.longest)
