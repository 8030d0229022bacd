"""What a job asks of adapters: one, as strong as it likes, or several at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from aril.schemas import ErrorCode, JobError
from aril.worker.engine.mixture import Mixture, check_scale, mix

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aril.schemas import Job
    from aril.worker.adapters import AdapterWeights


class AdapterSource(Protocol):
    """Where a tenant's adapters come from."""

    async def get(self, tenant: str, name: str) -> AdapterWeights:
        """Return the weights. Raises JobError."""


class AskedAdapters:
    """Fetches what jobs name, and sees that it can be had together and as strong as that."""

    def __init__(self, source: AdapterSource | None, slots: int) -> None:
        """`source` is None where there are no adapters; a mixture may have one a slot."""
        self._source = source
        self._slots = slots

    async def get(self, job: Job) -> AdapterWeights | Mixture | None:
        """Return what a job names, None for the bare backbone. Raises JobError."""
        if job.adapter is None and job.adapters is None:
            return None
        if self._source is None:
            raise JobError(ErrorCode.UNKNOWN_ADAPTER, "adapter: this service has none")
        if job.adapter is not None:
            adapter = await self._source.get(job.tenant, job.adapter)
            check_scale(adapter, job.adapter_scale)
            return adapter
        shares = job.adapters or ()
        if len(shares) > self._slots:
            raise JobError(
                ErrorCode.LIMIT_EXCEEDED,
                f"adapters: this service mixes at most {self._slots}, not {len(shares)}",
                limit=self._slots,
                given=len(shares),
            )
        members = [await self._source.get(job.tenant, each.name) for each in shares]
        return mix(tuple(members), tuple(each.weight for each in shares))


def active_from(adapter: AdapterWeights | Mixture | None, prompt_ids: Sequence[int]) -> int | None:
    """Return the prompt's token from which on an adapter works; None: it does not work at all."""
    if adapter is None or isinstance(adapter, Mixture):
        return 0
    return adapter.active_from(prompt_ids)
