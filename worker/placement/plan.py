"""Which worker gets which partitions: few are filled before another is opened. Pure.

Run by the group's leader in each rebalance, from what every member reported. Deterministic: the
same reports give the same plan, whoever leads and in whatever order they came.

    a partition stays with its owner, unless …
    … the owner is gone or draining      →  to an open worker with room, else a further one opens
    … the owner is above OPEN_ABOVE      →  the fewest partitions go until it is at FILL_TO
    … all of a worker's fit elsewhere    →  they go, and the worker stands by

Moves fill a worker to FILL_TO of its rows, those that close another one only to CLOSE_TO, and
nothing leaves it below OPEN_ABOVE: in between nothing moves, and what opened a worker does not
close it. After Punica's rule, by which a request goes to the fullest GPU that can take it (Chen et
al., "Punica: Multi-Tenant LoRA Serving", MLSys 2024), but for partitions: a request that waits or
runs moves only with its partition, by revoke and claim.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from aril.worker.job import Partition

FILL_TO: Final = 0.7  # of a worker's rows: moves fill it no further; what is left takes bursts
CLOSE_TO: Final = 0.6  # of a worker's rows: one is emptied only if the others stay below this
OPEN_ABOVE: Final = 0.9  # of a worker's rows: above this it gives partitions away
RELIEF: Final = 0.8  # where nobody has room, a move has to land this much below where it came from
ROUNDS: Final = 16  # of relieving and closing; beyond two only where topics have different readers
DEFAULT_ROWS: Final = 16  # of a member that told nothing, when nobody did

# Sums of the same loads in another order differ in the last bits; no limit is that sharp.
EPSILON: Final = 1e-6


@dataclass(frozen=True, slots=True)
class PartitionLoad:
    """What a partition brings to its worker."""

    rows: float | None = None  # jobs that run or wait, smoothed; None: nobody knows
    adapters: tuple[int, ...] = ()  # that its jobs used last


@dataclass(frozen=True, slots=True)
class Member:
    """What the leader knows of one member of the group."""

    name: str
    topics: frozenset[str]
    rows: int | None = None  # jobs that it decodes at the same time; None: it told nothing readable
    generation: int = -1  # in which it had what it holds; of two that name a partition the later
    held: Mapping[Partition, PartitionLoad] = field(default_factory=dict)
    adapters: frozenset[int] = frozenset()  # that it has at hand
    draining: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """Who gets what, and what the loads were taken to be."""

    partitions: Mapping[str, tuple[Partition, ...]]  # by member, each member named
    loads: Mapping[Partition, float]  # rows; unknown ones guessed
    rows: Mapping[str, int]  # by member; unknown ones guessed
    moved: int  # partitions whose owner is alive and lost them
    standby: int  # members that hold nothing and could take something

    def load(self, member: str) -> float:
        """Rows that a member's partitions take."""
        return sum(self.loads[each] for each in self.partitions[member])

    @property
    def open(self) -> list[str]:
        """The members that hold something, emptiest first."""
        holding = [name for name, held in self.partitions.items() if held]
        return sorted(holding, key=lambda name: (self.load(name), name))


def place(members: Iterable[Member], partitions: Iterable[Partition]) -> Plan:
    """Give each partition to one member that reads its topic.

    Partitions of a topic that no member reads are left out. A draining member gets only what
    nobody else can read.
    """
    board = _Board(sorted(members, key=lambda each: each.name), sorted(set(partitions)))
    board.keep_owners()
    board.house_orphans()
    for _ in range(ROUNDS):
        relieved, closed = board.relieve_full(), board.close_spare()
        if not (relieved or closed):
            break
    return board.plan()


class _Worker:
    """A member while a plan is made."""

    def __init__(self, member: Member, rows: int) -> None:
        self.member = member
        self.name = member.name
        self.rows = rows
        self.load = 0.0
        self.partitions: set[Partition] = set()

    @property
    def share(self) -> float:
        """Load, of its rows."""
        return self.load / self.rows

    def fits(self, load: float, limit: float) -> bool:
        """Whether it stays at or below a share of its rows with so much more."""
        return self.load + load <= limit * self.rows + EPSILON


class _Board:
    """A plan in the making. Each step leaves every partition where it was or somewhere better."""

    def __init__(self, members: Sequence[Member], partitions: Sequence[Partition]) -> None:
        told = [each.rows for each in members if each.rows]
        rows = int(statistics.median_low(told)) if told else DEFAULT_ROWS
        self._workers = [_Worker(each, each.rows or rows) for each in members]
        self._readers = {
            topic: self._readers_of(topic) for topic in {each.topic for each in partitions}
        }
        self._partitions = [each for each in partitions if self._readers[each.topic]]
        self._owners = self._find_owners()
        self._adapters: dict[Partition, frozenset[int]] = {}
        self._loads = self._find_loads()
        self._at: dict[Partition, _Worker] = {}

    def _readers_of(self, topic: str) -> list[_Worker]:
        reading = [each for each in self._workers if topic in each.member.topics]
        return [each for each in reading if not each.member.draining] or reading

    def _find_owners(self) -> dict[Partition, _Worker]:
        """Return who had each partition last; where two say so, the later one, then by name."""
        owners: dict[Partition, _Worker] = {}
        for worker in sorted(self._workers, key=lambda each: each.member.generation):
            for each in worker.member.held:
                owners[each] = worker
        return owners

    def _find_loads(self) -> dict[Partition, float]:
        """Return rows of each partition; an unknown one is taken to be like the known.

        Nothing known at all, as when a whole group starts: loads that fill all workers alike, so
        that nobody is swamped before there is anything to go by.
        """
        loads: dict[Partition, float] = {}
        for each in self._partitions:
            owner = self._owners.get(each)
            told = owner.member.held[each] if owner else PartitionLoad()
            self._adapters[each] = frozenset(told.adapters)
            if told.rows is not None:
                loads[each] = told.rows
        if loads:
            guess = sum(loads.values()) / len(loads)
        else:
            rows = sum(each.rows for each in self._workers if not each.member.draining)
            guess = FILL_TO * rows / max(1, len(self._partitions))
        return {each: loads.get(each, guess) for each in self._partitions}

    def keep_owners(self) -> None:
        """Leave each partition where it is, if its owner may have it."""
        for each in self._partitions:
            owner = self._owners.get(each)
            if owner is not None and owner in self._readers[each.topic]:
                self._put(each, owner)

    def house_orphans(self) -> None:
        """Find a worker for what nobody has, the largest first."""
        orphans = [each for each in self._partitions if each not in self._at]
        for each in sorted(orphans, key=lambda each: (-self._loads[each], each)):
            where = (
                self._with_room(each, FILL_TO)
                or self._with_room(each, OPEN_ABOVE)  # no reason to open one; it gives away later
                or self._standby(each)
                or min(self._readers[each.topic], key=lambda it: (it.share, it.name))
            )
            self._put(each, where)

    def relieve_full(self) -> bool:
        """Take from each worker that is too full what brings it down again; return if any went."""
        any_went = False
        full = [each for each in self._workers if each.load > OPEN_ABOVE * each.rows + EPSILON]
        for worker in sorted(full, key=lambda each: (-each.share, each.name)):
            while worker.load > FILL_TO * worker.rows + EPSILON:
                if not (step := self._relief(worker)):
                    break
                self._put(*step)
                any_went = True
        return any_went

    def _relief(self, worker: _Worker) -> tuple[Partition, _Worker] | None:
        """Choose what goes next, and where to; None when nothing would be better elsewhere."""
        loaded = [each for each in worker.partitions if self._loads[each] > 0]
        if len(loaded) < 2:  # noqa: PLR2004 - one partition is as much elsewhere
            return None
        excess = worker.load - FILL_TO * worker.rows
        # One that suffices, the smallest; else the largest: so the fewest go.
        for each in sorted(
            loaded,
            key=lambda each: (
                (short := self._loads[each] + EPSILON < excess),
                -self._loads[each] if short else self._loads[each],
                each,
            ),
        ):
            where = self._with_room(each, FILL_TO) or self._standby(each)
            if where is None:
                emptiest = min(self._readers[each.topic], key=lambda it: (it.share, it.name))
                lands_at = (emptiest.load + self._loads[each]) / emptiest.rows
                where = emptiest if lands_at <= RELIEF * worker.share else None
            if where is not None and where is not worker:
                return each, where
        return None

    def close_spare(self) -> bool:
        """Empty the emptiest worker while all that it has fits elsewhere; return if any was."""
        any_closed = False
        while open_ones := [w for w in self._workers if w.partitions and not w.member.draining]:
            spare = min(open_ones, key=lambda each: (each.load, len(each.partitions), each.name))
            moves = self._emptied(spare)
            if moves is None:
                break
            for each, where in moves:
                self._put(each, where)
            any_closed = True
        return any_closed

    def _emptied(self, spare: _Worker) -> list[tuple[Partition, _Worker]] | None:
        """Return where each of a worker's partitions would go; None if one would not fit."""
        before = {each: each.load for each in self._workers}
        moves = []
        for each in sorted(spare.partitions, key=lambda each: (-self._loads[each], each)):
            where = self._with_room(each, CLOSE_TO, but=spare)
            if where is None:
                break
            where.load += self._loads[each]  # taken back below: only to see the next one fit
            moves.append((each, where))
        for worker, load in before.items():
            worker.load = load
        return moves if len(moves) == len(spare.partitions) else None

    def _with_room(
        self, each: Partition, limit: float, but: _Worker | None = None
    ) -> _Worker | None:
        """Return the open worker that takes it best: its adapters at hand, then the fullest."""
        load = self._loads[each]
        able = [
            worker
            for worker in self._readers[each.topic]
            if worker.partitions and worker is not but and (not load or worker.fits(load, limit))
        ]
        return self._best(each, able)

    def _standby(self, each: Partition) -> _Worker | None:
        """Return the worker to open for a partition."""
        return self._best(each, [w for w in self._readers[each.topic] if not w.partitions])

    def _best(self, each: Partition, able: list[_Worker]) -> _Worker | None:
        wanted = self._adapters[each]
        return min(
            able,
            key=lambda it: (-len(wanted & it.member.adapters), -it.share, -it.rows, it.name),
            default=None,
        )

    def _put(self, each: Partition, where: _Worker) -> None:
        before = self._at.get(each)
        if before is not None:
            before.partitions.remove(each)
            before.load -= self._loads[each]
        where.partitions.add(each)
        where.load += self._loads[each]
        self._at[each] = where

    def plan(self) -> Plan:
        """Return what came out."""
        return Plan(
            partitions={each.name: tuple(sorted(each.partitions)) for each in self._workers},
            loads=self._loads,
            rows={each.name: each.rows for each in self._workers},
            moved=sum(
                self._owners.get(each, where) is not where for each, where in self._at.items()
            ),
            standby=sum(not (each.partitions or each.member.draining) for each in self._workers),
        )
