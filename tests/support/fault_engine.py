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
from typing import TYPE_CHECKING, NamedTuple

from aril.schemas import ErrorCode, JobError
from aril.worker.adapters import AdapterWeights
from aril.worker.constraints.compiler import ConstraintCompiler
from aril.worker.engine.mixture import Mixture, members_of
from aril.worker.engine.request import GenerationRequest, Output
from aril.worker.job import Prompt
from aril.worker.loading import Loaded
from tests.support.fault_content import (
    ADAPTERS,
    INVOCATIONS,
    digest_of,
    name_of,
    prompt_of,
    shown,
    text_of,
    tokens_of,
    voice_of,
)
from tests.support.fault_forms import begin, next_token, vocabulary
from tests.support.fault_store import StoreTrouble

if TYPE_CHECKING:
    from aril.schemas import Job
    from aril.worker.engine.answer import Answer
    from aril.worker.settings import WorkerSettings

FETCH_SECONDS = 0.05  # at most: adapters come from a disk or a share, out of order


class _Running(NamedTuple):
    """One answer, and how far it is."""

    tenant: str
    job: str
    voice: str | None  # of its adapters
    written: int
    whole: int
    answer: Answer | None = None  # of a constrained one, which is told by `fault_forms`


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
        adapter, scale = request.adapter, request.adapter_scale
        weights = adapter.weights if isinstance(adapter, Mixture) else (1.0,)
        digests = [each.digest for each in members_of(adapter)]
        scales = [scale * weight for weight in weights] if digests else []
        voice = voice_of(digests, scales, request.active_from)
        begun, whole = len(request.resume_ids), request.sampling.longest
        if request.constraint is not None:
            answer = begin(request.constraint, request.sampling)
            for token in request.resume_ids:
                answer.push(token)
            if answer.finish is not None:
                self._ended.append(Output(request.key, finish=answer.finish))
            else:
                row = _Running(tenant, job, voice, begun, whole, answer)
                self._running[request.key] = row
            return
        if request.resume_ids != tokens_of(tenant, job, 0, begun, voice) or begun > whole:
            raise JobError(ErrorCode.INTERNAL, f"resumed with {begun} tokens that are not its own")
        if begun == whole:
            self._ended.append(Output(request.key, finish="length"))
        else:
            self._running[request.key] = _Running(tenant, job, voice, begun, whole)

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
            row = self._running.pop(key)
            tenant, job, voice, index, whole, answer = row
            count = index + 1
            if answer is not None:
                token = next_token(tenant, job, index, voice, answer)
                text = answer.push(token)
                outputs.append(Output(key, (token,), text, finish=answer.finish))
                if answer.finish is None:
                    self._running[key] = row._replace(written=count)
                continue
            ids = tokens_of(tenant, job, index, count, voice)
            if count == whole:
                text = text_of(tenant, job, shown(index), whole, voice)
                outputs.append(Output(key, ids, text, finish="length"))
            else:
                self._running[key] = _Running(tenant, job, voice, count, whole)
                text = text_of(tenant, job, shown(index), shown(count), voice)
                outputs.append(Output(key, ids, text))
        return outputs


class TaggedPrompts:
    """A prompt is the job's name, whatever it says; there is no chat template."""

    def encode(self, job: Job, rendered: str | None = None, **_: object) -> Prompt:  # noqa: ARG002
        """Return the name's bytes. Raises JobError for messages."""
        if job.messages is not None:
            raise JobError(ErrorCode.INVALID_JOB, "messages: send a prompt")
        return Prompt(prompt_of(job.tenant, job.id), job.sampling.longest)


class TaggedAdapters:
    """Every tenant has the same names, with contents of its own; the store may be in trouble."""

    def __init__(self, store: StoreTrouble) -> None:
        self._store = store

    async def get(self, tenant: str, name: str) -> AdapterWeights:
        """Return what a tenant means by a name, after a while. Raises JobError and OSError."""
        await asyncio.sleep(random.uniform(0, FETCH_SECONDS))
        name, _, wanted = name.partition("@")
        await self._store.reach(tenant, name)
        digest = digest_of(tenant, name)
        if name not in ADAPTERS or wanted not in {"", digest}:
            raise JobError(ErrorCode.UNKNOWN_ADAPTER, f"adapter {name}: no such adapter")
        invocation = INVOCATIONS.get(name, ())
        return AdapterWeights(name=name, digest=digest, rank=1, modules={}, invocation=invocation)


def load_tagged(settings: WorkerSettings) -> Loaded:
    """Return what answers jobs here."""
    pace, killer = float(os.environ.get("FAULT_PACE", "0.02")), os.environ.get("FAULT_KILLER", "")
    engine = TaggedEngine(settings.max_rows, pace, killer, os.environ.get("FAULT_RAISER", ""))
    adapters = TaggedAdapters(StoreTrouble(Path(os.environ["FAULT_STORE"])))
    constraints = ConstraintCompiler(vocabulary())
    return Loaded(engine, TaggedPrompts(), adapters, "tagged", constraints=constraints)
