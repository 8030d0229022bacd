"""From the window into the engine, by shares: who gets a row, and who gives one up.

While rows are free all of them are filled, with a few jobs beyond them, so that a row that falls
free is taken in the same step. Once they are full, a job whose tenant holds less than others takes
its room from those (`aril.worker.batching.shares`). Theirs goes back into the window, in its old
place; what it has brought stands, and what it computed stays in the KV cache for as long as that
has room.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from aril.worker.batching.shares import Capacity, Shares, Use, giving_way
from aril.worker.batching.window import BatchLimits, Window
from aril.worker.engine.mixture import members_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from aril.worker.engine.request import GenerationRequest
    from aril.worker.intake.tenant_limits import TenantLimits
    from aril.worker.job import Entry
    from aril.worker.settings import WorkerSettings


class EngineHandle(Protocol):
    """An engine that runs apart from the event loop."""

    def submit(self, requests: Sequence[GenerationRequest]) -> None:
        """Add requests at the next step boundary."""

    def cancel(self, key: int) -> None:
        """Stop one at the next step boundary; unknown keys are ignored."""

    @property
    def lost(self) -> bool:
        """Whether it has failed, or hangs: no step of it will end."""


class Feed:
    """The window of one engine, and what runs in it."""

    def __init__(
        self,
        *,
        settings: WorkerSettings,
        kv_tokens: int | None,
        engine: EngineHandle,
        limits: TenantLimits,
        request: Callable[[Entry], GenerationRequest],
        displaced: Callable[[Entry, bool], None],
    ) -> None:
        """Prepare.

        `request` is asked for what is submitted; `displaced` is told of each job that gives way,
        and whether it had a row; it offers it again.
        """
        self._capacity = Capacity(settings.max_rows, settings.slots, kv_tokens)
        self._ahead = max(1, settings.max_rows // 4)
        batch = BatchLimits(settings.max_rows, settings.max_step_tokens, settings.slots)
        self._window: Window[Entry] = Window(seconds=settings.window_ms / 1_000, limits=batch)
        self._running: dict[int, Entry] = {}  # as they were submitted
        self._engine = engine
        self._limits = limits
        self._request = request
        self._displaced = displaced

    def __len__(self) -> int:
        return len(self._running)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._running.values())

    @property
    def ahead(self) -> list[Entry]:
        """Jobs in the engine that wait there for a row."""
        return [*self][self._capacity.rows :]

    @property
    def gathered(self) -> int:
        """Jobs in the window."""
        return len(self._window)

    def waiting(self) -> Iterator[Entry]:
        """Return the jobs in the window."""
        return iter(self._window)

    def closes_at(self) -> float | None:
        """When the window closes, on the loop's clock; None if nobody waits for that."""
        return None if self._running else self._window.closes_at()

    def find(self, key: int) -> Entry | None:
        """Return the running job of that key."""
        return self._running.get(key)

    def offer(self, entry: Entry) -> None:
        """Let a job wait for company; one that ran already waits where it did."""
        if not entry.gathered:
            entry.gathered = asyncio.get_running_loop().time()
        first = entry.begun_before
        self._window.offer(entry, _use(entry), since=entry.gathered, first=first)

    def ended(self, key: int) -> None:
        """Note that the engine is through with a job: there is nothing to cancel."""
        del self._running[key]

    def stop(self, entry: Entry) -> bool:
        """Take a job out of the engine; False if it is not there."""
        if self._running.pop(entry.key, None) is None:
            return False
        self._engine.cancel(entry.key)
        return True

    def discard(self, entry: Entry) -> bool:
        """Take a job out of the window; False if it is not there."""
        return self._window.discard(entry)

    def held_up(self) -> set[str]:
        """Return the tenants whose next job in the window may not run yet."""
        shares = self._shares(map(_use, self))
        firsts = self._window.first_of_each()
        return {tenant for tenant, (_, use) in firsts.items() if not self._may(use, shares)}

    def submit(self, now: float) -> bool:
        """Let in what has its turn; tell whether anything had."""
        if not self._window:
            return False
        batch = self._make_room()
        shares = self._shares([*map(_use, self), *map(_use, batch)])
        batch += self._window.take(
            now=now,
            busy=bool(self._running or batch),
            rows=self._capacity.rows + self._ahead - len(self._running) - len(batch),
            shares=shares,
            may=lambda use: self._may(use, shares),
        )
        if batch:
            self._engine.submit([self._begin(entry) for entry in batch])
        return bool(batch)

    def _begin(self, entry: Entry) -> GenerationRequest:
        request = self._request(entry)
        self._running[request.key] = entry
        return request

    def _may(self, use: Use, shares: Shares) -> bool:
        """Tell whether its tenant's limits let a job run beside what does.

        One of more adapters than they allow runs beside none of its tenant's: else it never would.
        """
        limit = self._limits.of(use.tenant)
        rows = shares.rows_of(use.tenant)
        return not rows or (
            (limit.rows is None or rows < limit.rows)
            and (limit.adapters is None or shares.adapters_with(use) <= limit.adapters)
        )

    def _shares(self, running: Iterable[Use]) -> Shares:
        return Shares(self._capacity, self._limits.weight, running)

    def _make_room(self) -> list[Entry]:
        """Displace what gives way to the next jobs of tenants that wait; take these.

        They come in before anybody else: by their shares alone the displaced might, for ever.
        """
        rows, ahead = [*self][: self._capacity.rows], self.ahead
        running = [*map(_use, rows)]
        newcomers = self._window.first_of_each()
        newcomers |= {entry.tenant: (entry, _use(entry)) for entry in reversed(ahead)}
        shares = self._shares(running)
        spare = shares.spare(running)
        gone: list[Entry] = []
        placed: list[Entry] = []
        for entry, use in sorted(newcomers.values(), key=lambda each: shares.of(each[1].tenant)):
            if not (shares.may_find_room(use, spare) and self._may(use, shares)):
                continue
            beside = [*running, *map(_use, placed)]
            places = giving_way(beside, use, self._capacity, self._limits.weight)
            if not places or max(places) >= len(running):
                continue  # it waits, or could only have the room of another newcomer
            for place in sorted(places, reverse=True):
                gone.append(rows.pop(place))
                shares.remove(running.pop(place))
            placed.append(entry)
            shares.add(use)
            spare = shares.spare(running)
        if placed:
            # Those ahead have not begun, and would come before the newcomers.
            for entry in (*gone, *ahead):
                self._displaced(entry, entry in gone)
            for entry in placed:
                self._window.discard(entry)
        return placed


def _use(entry: Entry) -> Use:
    return Use(
        entry.tenant,
        frozenset(adapter.digest for adapter in members_of(entry.adapter)),
        len(entry.prompt_ids) + entry.answered,
    )
