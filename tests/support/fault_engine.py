"""An engine that needs no model, and adapters that are nothing but their names.

Every token tells whose it is and which adapter it came from: `tests.support.fault_content`.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

from schemas import ErrorCode, JobError
from tests.support.fault_content import (
    ADAPTERS,
    digest_of,
    name_of,
    prompt_of,
    shown,
    text_of,
    tokens_of,
)
from tests.support.fault_store import StoreTrouble
from worker.engine.request import GenerationRequest, Output
from worker.job import Prompt
from worker.loading import Loaded

if TYPE_CHECKING:
    from schemas import Job
    from worker.adapters import AdapterWeights
    from worker.settings import WorkerSettings

FETCH_SECONDS = 0.05  # at most: adapters come from a disk or a share, out of order


class _Running(NamedTuple):
    """One answer, and how far it is."""

    tenant: str
    job: str
    digest: str | None  # of its adapter
    written: int
    whole: int


class TaggedEngine:
    """One token a row a step, each told by `fault_content`; goes on behind what is visible."""

    def __init__(self, rows: int, pace: float, killer: str = "", raiser: str = "") -> None:
        self._rows = rows
        self._pace = pace
        self._killer = killer  # the id of a job that no process survives
        self._raiser = raiser  # the id of a job whose every step raises
        self._running: dict[int, _Running] = {}
        self._ended: list[Output] = []

    @property
    def has_work(self) -> bool:
        """Whether a step would bring anything."""
        return bool(self._running or self._ended)

    def submit(self, request: GenerationRequest) -> None:
        """Take a request. Raises JobError when the tokens to go on from are not its own."""
        tenant, job = name_of(request.prompt_ids)
        digest = request.adapter.digest if request.adapter else None
        begun, whole = len(request.resume_ids), request.sampling.longest
        if request.resume_ids != tokens_of(tenant, job, 0, begun, digest) or begun > whole:
            raise JobError(ErrorCode.INTERNAL, f"resumed with {begun} tokens that are not its own")
        if begun == whole:
            self._ended.append(Output(request.key, finish="length"))
        else:
            self._running[request.key] = _Running(tenant, job, digest, begun, whole)

    def cancel(self, key: int) -> None:
        """Drop a request."""
        self._running.pop(key, None)
        self._ended = [output for output in self._ended if output.key != key]

    def step(self) -> list[Output]:
        """Bring one token for each of the first rows."""
        time.sleep(self._pace)
        if any(row.job == self._killer for row in self._running.values()):
            os.kill(os.getpid(), signal.SIGKILL)
        if any(row.job == self._raiser for row in self._running.values()):
            raise RuntimeError("no step with this job in it ends")
        outputs, self._ended = self._ended, []
        for key in list(self._running)[: self._rows]:
            tenant, job, digest, index, whole = self._running.pop(key)
            count = index + 1
            ids = tokens_of(tenant, job, index, count, digest)
            if count == whole:
                text = text_of(tenant, job, shown(index), whole, digest)
                outputs.append(Output(key, ids, text, finish="length"))
            else:
                self._running[key] = _Running(tenant, job, digest, count, whole)
                text = text_of(tenant, job, shown(index), shown(count), digest)
                outputs.append(Output(key, ids, text))
        return outputs


class TaggedPrompts:
    """A prompt is the job's name, whatever it says; there is no chat template."""

    def encode(self, job: Job, rendered: str | None = None, **_: object) -> Prompt:  # noqa: ARG002
        """Return the name's bytes. Raises JobError for messages."""
        if job.messages is not None:
            raise JobError(ErrorCode.INVALID_JOB, "messages: send a prompt")
        return Prompt(prompt_of(job.tenant, job.id), job.sampling.longest)


class TaggedAdapter(NamedTuple):
    """An adapter without weights."""

    name: str
    digest: str
    template: None = None
    added_tokens: None = None


class TaggedAdapters:
    """Every tenant has the same names, with contents of its own; the store may be in trouble."""

    def __init__(self, store: StoreTrouble) -> None:
        self._store = store

    async def get(self, tenant: str, name: str) -> AdapterWeights:
        """Return what a tenant means by a name, after a while. Raises JobError and OSError."""
        await asyncio.sleep(random.uniform(0, FETCH_SECONDS))
        name, _, wanted = name.partition("@")
        await self._store.reach(tenant, name)
        found = TaggedAdapter(name, digest_of(tenant, name))
        if name not in ADAPTERS or wanted not in {"", found.digest}:
            raise JobError(ErrorCode.UNKNOWN_ADAPTER, f"adapter {name}: no such adapter")
        return cast("AdapterWeights", found)


def load_tagged(settings: WorkerSettings) -> Loaded:
    """Return what answers jobs here."""
    pace, killer = float(os.environ.get("FAULT_PACE", "0.02")), os.environ.get("FAULT_KILLER", "")
    engine = TaggedEngine(settings.max_rows, pace, killer, os.environ.get("FAULT_RAISER", ""))
    adapters = TaggedAdapters(StoreTrouble(Path(os.environ["FAULT_STORE"])))
    return Loaded(engine, TaggedPrompts(), adapters, "tagged")
