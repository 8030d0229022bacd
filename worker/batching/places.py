"""Jobs whose turn has come, until they are in the window: prepared side by side, each in a place.

One that has waited a moment for its adapters, its constraint or its own template is slow, and holds
no place of the others'; both are bounded. A job that ends meanwhile keeps its place until what it
waits for is there: a thread cannot be stopped.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from aril.schemas import Activation, ErrorCode, JobError
from aril.worker.engine.mixture import members_of
from aril.worker.observe.logs import get_logger
from aril.worker.stages import Event, Stage

if TYPE_CHECKING:
    from collections.abc import Callable

    from aril.schemas import Job
    from aril.worker.batching.preparation import Needs, Preparation
    from aril.worker.job import Entry

log = get_logger(__name__)

# From then on a fetch is slow: one from the host cache takes a thread and a look at the folder.
SLOW_FETCH_SECONDS: float = 0.05
# Of a suspect's: not all that it waited for lasts until its next turn (a rendered conversation).
PATIENCE_GROWTH: Final = 4
# Batches that may wait for a slow store, one job a tenant beyond the first: bounds memory.
SLOW_BATCHES: Final = 8
_PREPARED_IN: Final = frozenset({Stage.PREPARING, Stage.FETCHING})


class Places:
    """The jobs that are being prepared. Lives on the event loop."""

    def __init__(
        self,
        preparation: Preparation,
        rows: int,
        *,
        happened: Callable[[Entry, Event], None],
        fetched: Callable[[Entry], None],
        slow: Callable[[Entry], None],
        changed: Callable[[], None],
    ) -> None:
        """Prepare. `fetched` is told when what a job needs is there, `slow` when that takes long.

        `changed` is called as places fall free.
        """
        self._preparation = preparation
        self._rows = rows
        self._happened = happened
        self._fetched = fetched
        self._slow = slow
        self._changed = changed
        self.chosen: set[Entry] = set()
        self.abandoned: set[Entry] = set()  # ended; their preparing goes on in their places
        self.slow: set[Entry] = set()  # of both
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def taken(self) -> int:
        """How many places are taken; those of slow ones are none."""
        return len(self.chosen) + len(self.abandoned) - len(self.slow)

    @property
    def coming(self) -> bool:
        """Whether any is expected in a moment."""
        return bool((self.chosen | self.abandoned) - self.slow)

    @property
    def crowded(self) -> bool:
        """Whether as many are slow as a batch holds: their tenants have no more."""
        return len(self.slow) >= self._rows

    @property
    def full(self) -> bool:
        """Whether nobody may have more: too many are slow."""
        return len(self.slow) >= SLOW_BATCHES * self._rows

    def prepare(self, entry: Entry) -> None:
        """Tokenise a job's prompt and fetch its adapter."""
        task = asyncio.create_task(self._hold(entry))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def leave(self, entry: Entry) -> bool:
        """Give a job up that is being prepared; False if it is not."""
        if entry not in self.chosen:
            return False
        self.chosen.discard(entry)
        self.abandoned.add(entry)
        return True

    def close(self) -> None:
        """Begin nothing more; what fails from now on may fail by our leaving."""
        self._closed = True
        self._preparation.close()

    async def _hold(self, entry: Entry) -> None:
        try:
            await self._prepare(entry)
        finally:
            self.abandoned.discard(entry)
            self._changed()

    async def _prepare(self, entry: Entry) -> None:
        job = entry.job
        assert job is not None, "a refused record is never dispatched"  # noqa: S101 - ours
        try:
            needs = await self._fetch(entry, job)
            self._fetched(entry)
            prompt, start = await self._preparation.encode(job, needs)
        except JobError as error:
            refusal = error.bare()
            if self._closed:  # by our leaving, perhaps; whoever has the job next sees for itself
                return
        except Exception:
            if self._closed:
                return
            log.exception("prepare_failed", job=entry.job_id, tenant=entry.tenant)
            refusal = JobError(ErrorCode.INTERNAL, "the job could not be prepared")
        else:
            if entry.stage in _PREPARED_IN:  # else it ended meanwhile
                entry.prompt_ids, entry.answer_tokens = prompt
                members = members_of(needs.adapter)
                entry.digests = tuple(member.digest for member in members)
                invoked = any(member.invocation for member in members)
                entry.activation = Activation(start) if invoked else None
                # An adapter that nothing in the prompt invokes needs no slot.
                entry.adapter = None if start is None else needs.adapter
                entry.constraint = needs.constraint
                self._happened(entry, Event.PREPARED)
            return
        if entry.stage in _PREPARED_IN:
            entry.error = refusal
            self._happened(entry, Event.FAILED)

    async def _fetch(self, entry: Entry, job: Job) -> Needs:
        """Await what a job needs; where that takes a while, the job holds up nobody meanwhile."""
        # A job that takes as long each time it is alone would never run: more patience each time.
        patience = SLOW_FETCH_SECONDS * PATIENCE_GROWTH**entry.delays
        timer = asyncio.get_running_loop().call_later(patience, self._is_slow, entry)
        try:
            return await self._preparation.fetch(job)
        finally:
            timer.cancel()
            self.slow.discard(entry)

    def _is_slow(self, entry: Entry) -> None:
        if entry in self.chosen or entry in self.abandoned:
            self.slow.add(entry)
            self._slow(entry)
            self._changed()
