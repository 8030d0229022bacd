"""Three rules by which jobs come to a simulated fleet's GPUs.

Spread and Consolidate place partitions, Consolidate by `aril.worker.placement.plan`, the triggers
of `aril.worker.placement.trigger` and the meters of `aril.worker.placement.load_meter` themselves.
Punica's rule places single requests.
"""

from __future__ import annotations

import heapq
import itertools
from collections import defaultdict
from typing import TYPE_CHECKING, Final

from aril.worker.placement.assignor import notice_for
from aril.worker.placement.load_meter import LoadMeter, Sample
from aril.worker.placement.plan import Member, place
from aril.worker.placement.trigger import Trigger

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aril.worker.job import Partition
    from benchmarks.fleet import Fleet, Gpu, Job

# What comes while a group rebalances waits: a heartbeat until all have heard, joining, claims.
REBALANCE_SECONDS: Final = 1.5


class Punica:
    """Each request to the GPU with the largest working set that can take it, first come first."""

    def __init__(self) -> None:
        self._waiting: list[tuple[float, int, Job]] = []
        self._order = itertools.count()

    def arrive(self, fleet: Fleet, job: Job) -> None:
        """Let it wait its turn, for any GPU."""
        heapq.heappush(self._waiting, (job.came, next(self._order), job))
        self._serve(fleet)

    def freed(self, fleet: Fleet, gpu: Gpu) -> None:  # noqa: ARG002 - the interface
        """Give the row to who waits longest."""
        self._serve(fleet)

    def tick(self, fleet: Fleet) -> int:
        """Count the GPUs that do anything."""
        return sum(bool(gpu.running) for gpu in fleet.gpus)

    def _serve(self, fleet: Fleet) -> None:
        while self._waiting:
            job = self._waiting[0][2]
            able = [gpu for gpu in fleet.gpus if gpu.has_room(job, fleet.now)]
            if not able:
                return
            heapq.heappop(self._waiting)
            fleet.begin(max(able, key=lambda gpu: (len(gpu.running), gpu.name)), job)


class Spread:
    """Partitions, evenly by their number, for the whole day: the default assignor."""

    def __init__(self, partitions: Sequence[Partition]) -> None:
        self.partitions = sorted(partitions)
        self.owner: dict[Partition, Gpu] = {}
        self.resumes = 0.0  # until then the group rebalances

    def arrive(self, fleet: Fleet, job: Job) -> None:
        """Bring it to its partition's owner, once there is one."""
        if fleet.now < self.resumes:
            fleet.at(self.resumes, lambda: self.arrive(fleet, job))
        else:
            fleet.wait(self.owner[job.source], job)

    def freed(self, fleet: Fleet, gpu: Gpu) -> None:
        """Begin what waits there."""
        fleet.fill(gpu)

    def tick(self, fleet: Fleet) -> int:
        """Count the GPUs that hold partitions."""
        if not self.owner:
            self.owner = dict(zip(self.partitions, itertools.cycle(fleet.gpus), strict=False))
        return len({gpu.name for gpu in self.owner.values()})


class Consolidate(Spread):
    """Partitions by `aril.worker.placement.plan`, when a member's trigger asks."""

    def __init__(self, partitions: Sequence[Partition], seconds: float) -> None:
        super().__init__(partitions)
        self._seconds = seconds
        self._triggers: dict[str, Trigger] = {}
        self._meters: dict[str, LoadMeter] = {}
        self._topics = frozenset(each.topic for each in partitions)

    def tick(self, fleet: Fleet) -> int:
        """Measure every member; rebalance if one of them asks."""
        if not self.owner:
            for gpu in fleet.gpus:
                self._triggers[gpu.name] = Trigger(rows=gpu.size.rows, seconds=self._seconds)
                self._meters[gpu.name] = LoadMeter(gpu.size.slots)
            self._rebalance(fleet, asked=False)
        elif fleet.now >= self.resumes:
            for gpu in fleet.gpus:
                self._meters[gpu.name].observe(self._sample(gpu), fleet.now)
            asking = [
                gpu
                for gpu in fleet.gpus
                if self._triggers[gpu.name].ask(self._loads(gpu, fleet.now), fleet.now) is not None
            ]
            if asking:
                self._rebalance(fleet, asked=True)
        return len({gpu.name for gpu in self.owner.values()})

    def _sample(self, gpu: Gpu) -> Sample:
        jobs = gpu.running + [each for _, _, each in gpu.waiting]
        unfinished: dict[Partition, int] = defaultdict(int)
        for job in jobs:
            unfinished[job.source] += 1
        held = self._meters[gpu.name].held
        return Sample(
            {each: unfinished[each] for each in held},
            [(job.source, job.adapter) for job in gpu.running],
        )

    def _loads(self, gpu: Gpu, now: float) -> list[float]:
        return [each.rows or 0.0 for each in self._meters[gpu.name].loads(now).values()]

    def _rebalance(self, fleet: Fleet, *, asked: bool) -> None:
        members = [
            Member(
                gpu.name,
                self._topics,
                rows=gpu.size.rows,
                generation=fleet.outcome.rebalances,
                held=self._meters[gpu.name].loads(fleet.now),
                adapters=frozenset(self._meters[gpu.name].adapters),
            )
            for gpu in fleet.gpus
        ]
        plan = place(members, self.partitions)
        fleet.outcome.rebalances += asked
        self.resumes = fleet.now + REBALANCE_SECONDS
        before, self.owner = self.owner, {}
        for gpu in fleet.gpus:
            held = plan.partitions[gpu.name]
            self.owner |= dict.fromkeys(held, gpu)
            changed = {each for each, owner in before.items() if owner is gpu} != set(held)
            notice = notice_for(plan, gpu.name, asked=asked)
            loads = dict(zip(held, notice.loads, strict=True))
            self._meters[gpu.name].assigned(loads, fleet.now)
            self._triggers[gpu.name].told(notice, fleet.now, changed=changed)
        self._move_jobs(fleet)

    def _move_jobs(self, fleet: Fleet) -> None:
        """Hand over what is of partitions that went; the rest runs on."""
        for gpu in fleet.gpus:
            going = [job for job in gpu.running if self.owner[job.source] is not gpu]
            waits = [each for each in gpu.waiting if self.owner[each[2].source] is not gpu]
            for job in going:
                fleet.take(gpu, job)
            fleet.outcome.handed_over += len(going)
            gpu.waiting = [each for each in gpu.waiting if self.owner[each[2].source] is gpu]
            heapq.heapify(gpu.waiting)
            for job in [*going, *(job for _, _, job in waits)]:
                self.arrive(fleet, job)
            fleet.fill(gpu)
