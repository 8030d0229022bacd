"""What a job needs before it runs: adapters, its constraint, its prompt's tokens."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple, Protocol

from aril.schemas import ErrorCode, JobError
from aril.worker.batching.asked_adapters import AskedAdapters, active_from
from aril.worker.constraints.cache import ConstraintCache
from aril.worker.engine.mixture import Mixture

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aril.schemas import Job
    from aril.worker.adapters import AdapterWeights
    from aril.worker.batching.asked_adapters import AdapterSource
    from aril.worker.constraints.cache import Compiler
    from aril.worker.constraints.compiler import CompiledConstraint
    from aril.worker.job import Prompt
    from aril.worker.observe.metrics import Metrics


class PromptEncoder(Protocol):
    """What makes prompt tokens of a job."""

    def encode(
        self, job: Job, rendered: str | None = None, *, added: Mapping[str, int] | None = None
    ) -> Prompt:
        """Return them, and what room they leave. Raises JobError.

        `rendered` are its messages by the adapter's own template, where that is used, and `added`
        tokens that only the adapter knows.
        """


class Renderer(Protocol):
    """What renders messages by an adapter's own template."""

    async def render(self, job: Job, adapter: AdapterWeights) -> str:
        """Return the text. Raises JobError."""

    def close(self) -> None:
        """Render nothing any more."""

    async def ended(self) -> None:
        """Close, and wait until nothing of it is left."""


class Needs(NamedTuple):
    """What a job has to wait for, perhaps a while."""

    adapter: AdapterWeights | Mixture | None
    constraint: CompiledConstraint | None
    rendered: str | None  # its messages, by the adapter's own template


class Preparation:
    """Fetches, compiles and renders on the event loop's behalf, and tokenises in a thread."""

    def __init__(
        self,
        *,
        prompts: PromptEncoder,
        adapters: AdapterSource | None,
        templates: Renderer | None,
        constraints: Compiler | None,
        slots: int,
        metrics: Metrics,
    ) -> None:
        self._prompts = prompts
        self._adapters = AskedAdapters(adapters, slots)
        self._templates = templates
        self._constraints = None if constraints is None else ConstraintCache(constraints, metrics)
        # One thread: tokenising keeps the order of the jobs, and leaves the cores to the engine.
        self._tokenizing = ThreadPoolExecutor(1, thread_name_prefix="tokenize")

    def close(self) -> None:
        """Begin nothing more."""
        self._tokenizing.shutdown(wait=False, cancel_futures=True)
        if self._constraints is not None:
            self._constraints.close()
        if self._templates is not None:
            self._templates.close()

    async def fetch(self, job: Job) -> Needs:
        """Return what may take a while. Raises JobError."""
        adapter = await self._adapters.get(job)
        constraint = await self._constraint(job)
        return Needs(adapter, constraint, await self._rendered(job, adapter))

    async def encode(self, job: Job, needs: Needs) -> tuple[Prompt, int | None]:
        """Return the prompt, and from which of its tokens on the adapter works. Raises JobError."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._tokenizing, self._encode, job, needs)

    def _encode(self, job: Job, needs: Needs) -> tuple[Prompt, int | None]:
        adapter = needs.adapter
        # One that takes part in a mixture has none: it would have been refused.
        own = None if adapter is None or isinstance(adapter, Mixture) else adapter.added_tokens
        prompt = self._prompts.encode(job, needs.rendered, added=own)
        return prompt, active_from(adapter, prompt.ids)

    async def _constraint(self, job: Job) -> CompiledConstraint | None:
        constraint = job.sampling.constraint
        if constraint is None:
            return None
        if self._constraints is None:
            raise JobError(
                ErrorCode.INVALID_JOB,
                f"{constraint.field}: this service does not constrain answers",
            )
        return await self._constraints.get(job.tenant, constraint)

    async def _rendered(self, job: Job, adapter: AdapterWeights | Mixture | None) -> str | None:
        """Render messages where the adapter's own template is used; a mixture has none."""
        if adapter is None or isinstance(adapter, Mixture) or adapter.template is None:
            return None
        if job.messages is None or self._templates is None:
            return None
        return await self._templates.render(job, adapter)
