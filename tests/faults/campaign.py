"""One run with faults, from topics of its own to the checker's report."""

from __future__ import annotations

import itertools
import os
import random
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tests.faults.checker import check
from tests.faults.history import History
from tests.faults.summary import memory_mib, write_summary
from tests.support.fault_deaths import STEADY
from tests.support.fault_fleet import PARTITIONS, FaultSite, Fleet
from tests.support.fault_jobs import HEAVY, USUAL
from tests.support.fault_load import ANSWER_SECONDS, Load
from tests.support.fault_packers import CODECS
from tests.support.fault_plan import Faults
from tests.support.fault_scene import Scene
from tests.support.fault_watch import SETTLE_SECONDS, Offsets, dead_letters, inputs, replies

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aril.schemas import Epoch
    from tests.faults.report import Report
    from tests.support.fault_broker import MortalKafka

SLOWEST = 3  # answers that are told of
LONG_SECONDS = 300.0  # that an answer is waited for while the faults do not end
BUG_SECONDS = 30.0  # what a broken worker has lost is not waited for any longer


@dataclass(frozen=True, slots=True)
class Goal:
    """What a run has to reach before it ends; one round is the least."""

    seconds: float = 0.0
    jobs: int = 0
    faults: int = 0

    @classmethod
    def told(cls) -> Goal:
        """Read it from the environment; ten minutes if nothing is said."""
        told = {name: os.environ.get(f"FAULT_{name}") for name in ("SECONDS", "JOBS", "FAULTS")}
        if not any(told.values()):
            return cls(seconds=600)
        return cls(float(told["SECONDS"] or 0), int(told["JOBS"] or 0), int(told["FAULTS"] or 0))

    @property
    def long(self) -> bool:
        """Whether rounds are whole: with every fault instead of one of each kind."""
        return self != Goal()


@dataclass(slots=True)
class Campaign:
    """A run: what it is run on, how far, by which faults, and with which bug in the workers."""

    site: FaultSite
    seed: int
    goal: Goal = Goal()
    plan: Sequence[str] = ()
    bug: str | None = None
    broker: MortalKafka | None = None
    settings: Mapping[str, str] = field(default_factory=dict)  # of all workers, as environment

    async def run(self) -> Report:
        """Commit faults until the goal is reached; heal; check what was seen."""
        told = {**self.settings} | ({"FAULT_BUG": self.bug} if self.bug else {})
        fleet = Fleet(self.site, told)
        patience = LONG_SECONDS if self.goal.long else ANSWER_SECONDS
        patience = BUG_SECONDS if self.bug else patience
        pressure = HEAVY if self.goal.jobs else USUAL
        load = Load(self.site, self.seed, patience, pressure)
        scene = Scene(fleet, load, random.Random(self.seed), self.broker)
        faults = Faults(scene, self.seed)
        begun = time.monotonic()
        try:
            await fleet.grow(STEADY)
            async with load, Offsets(self.site) as offsets:
                await self._commit_faults(faults, load, begun)
                await load.finish()
                open_ = await offsets.settled(BUG_SECONDS if self.bug else SETTLE_SECONDS)
                for worker in [*fleet.steady]:
                    await fleet.drain(worker)
        finally:
            await fleet.close()
        seconds = time.monotonic() - begun
        history = await self._history(scene, offsets)
        report = check(history)
        added = sum(each.partition >= PARTITIONS for each in history.inputs)
        report.counts["on added partitions"] = added
        if faults.done["partition_added"] and not added:
            scene.missed.append("no job was produced to the partition that was added")
        if not self.plan:
            unused = [each for each in CODECS if not report.counts[f"packed by {each}"]]
            scene.missed += [f"no job that was packed by {each} was answered" for each in unused]
        for text in (*open_, *fleet.failed, *scene.missed):
            report.add("fleet", "", text)
        self._tell(report, faults, scene, seconds)
        show_slowest(load, history)
        show(report, history)
        return report

    async def _commit_faults(self, faults: Faults, load: Load, begun: float) -> None:
        """Commit one whole round, and then single faults of further ones up to the goal."""
        goal, told = self.goal, os.environ.get("FAULT_PLAN", "")

        def reached() -> bool:
            return (
                time.monotonic() - begun >= goal.seconds
                and len(load.asked) >= goal.jobs
                and faults.done.total() >= goal.faults
            )

        for number in itertools.count():
            plan = self.plan or [each for each in told.split(",") if each]
            for name in plan or faults.plan(whole=goal.long):
                if number and reached():
                    return
                before = time.monotonic()
                await faults.commit(name)
                took = f"{time.monotonic() - before:.1f} s, {len(load.asked)} jobs so far"
                print(f"{before - begun:6.1f} s {name}: {took}", flush=True)
            if reached():
                return

    async def _history(self, scene: Scene, offsets: Offsets) -> History:
        load = scene.load
        found = [*scene.retired, *await inputs(self.site), *scene.poisoned]
        return History(
            asked=[*load.asked, *scene.neighbours],
            log=[*scene.deleted, *await replies(self.site)],
            live=load.live,
            # Of what was read and was appended byte by byte the latter is known better.
            inputs=[*{(each.partition, each.offset): each for each in found}.values()],
            committed=offsets.seen,
            dead=await dead_letters(self.site),
            zombies=scene.zombies,
            generations_restarted=scene.generations_restarted,
            unfinished=load.unfinished,
            trims=scene.trims,
            withdrawn=scene.withdrawn,
            reply_partitions=PARTITIONS,
            clocks_off=scene.clocks_off,
            outages=scene.outages,
        )

    def _tell(self, report: Report, faults: Faults, scene: Scene, seconds: float) -> None:
        """Print what the run came to, and write it down where it is asked for."""
        load, events = scene.load, scene.fleet.events
        told = [*report.counts.items(), ("client restarts", load.restarts)]
        counts = ", ".join(f"{count} {name}" for name, count in told)
        print(f"seed {self.seed}, {seconds:.0f} s, {memory_mib():.0f} MiB:", counts)
        print("faults:", faults.done.total(), dict(faults.done))
        print("workers:", dict(events))
        if path := os.environ.get("FAULT_SUMMARY"):
            goal = f"{self.goal.seconds:.0f} s, {self.goal.jobs} jobs, {self.goal.faults} faults"
            write_summary(
                Path(path),
                report,
                config=f"seed {self.seed}; goal {goal}",
                faults=faults.done,
                figures={
                    ("duration", "s"): [seconds],
                    ("faults", "times"): [faults.done.total()],
                    ("client_restarts", "times"): [load.restarts],
                    ("answer", "s"): [took for took, _ in load.seconds],
                    ("slowest_answer", "s"): [max(load.seconds)[0]],
                    ("memory_of_checker_and_clients", "MiB"): [memory_mib()],
                },
                events=events,
            )


def show_slowest(load: Load, history: History) -> None:
    """Print which answers took longest, and who wrote them when: claims, first tokens, ends."""
    sent = {each.name: each for each in reversed(history.inputs) if each.kind == "job"}
    logs = history.by_job
    for seconds, name in sorted(load.seconds, reverse=True)[:SLOWEST]:
        told: dict[tuple[str, Epoch], str] = {}
        for each in logs.get(name, ()):
            at = (each.at_ms - sent[name].at_ms) / 1_000 if name in sent else 0.0
            kind = type(each.record).__name__.removesuffix("Record").lower()
            told.setdefault((kind, each.record.epoch), f"{at:.1f} s {kind} {each.record.epoch[:]}")
        where = sent[name].partition if name in sent else None
        print(f"{seconds:.1f} s {name}, partition {where}:", "; ".join(told.values()))


def show(report: Report, history: History) -> None:
    """Print what is wrong, and all that the log holds of the first jobs that are."""
    for each in report.violations[:40]:
        print("VIOLATION", *each)
    logs = {str(name): log for name, log in history.by_job.items()} if report.violations else {}
    for where in list(dict.fromkeys(each.where.split(" ")[0] for each in report.violations))[:5]:
        for logged in logs.get(where, ()):
            print(where, logged.partition, logged.offset, logged.at_ms, logged.record)
