"""A worker's lifecycle to which anything may happen: each step is a method, drawn by its weight."""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor, Future
from typing import TYPE_CHECKING, Any

from aril.schemas import (
    Cancel,
    ClaimRecord,
    Epoch,
    ErrorCode,
    Job,
    JobError,
    Sampling,
    encode_reply,
    encode_request,
    reply_partition,
)
from aril.worker.engine.request import Output
from aril.worker.replies.producer import AppendError
from aril.worker.stages import Stage
from tests.support.harness import REPLY_PARTITIONS, Harness

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from aril.worker.job import Entry

NAMES = 12  # of jobs; more of a name are twins, or conflicts where the text differs
SELDOM = 4  # each that many of them is another tenant's, which therefore holds less
# How often each step comes. What breaks things is rare, or nothing would get far.
CALM = {
    "wait": 14,
    "send_job": 8,
    "bring_token": 8,
    "bring_end": 4,
    "cancel": 3,
    "run_out_of_time": 1,
    "fail_in_engine": 1,
    "send_refused": 1,
    "send_without_topic": 1,
    "send_unreadable": 1,
    "fail_append": 2,
    "fail_append_for_good": 1,
    "hang": 1,
    "answer": 4,
    "lose_log": 1,
    "find_log": 2,
}
STORMY = CALM | {"lose": 1, "lose_engine": 1, "win": 2, "win_after_others": 1}
STORMY |= {"win_after_a_crash": 3}

WRITING = {Stage.RUNNING, Stage.DISPLACED, Stage.FINISHING, Stage.CONDEMNED, Stage.FAILING}


def tenant_of(name: str) -> str:
    """Return whose job that is."""
    return "acme" if int(name.strip("jr")) % SELDOM else "zeta"


class Inline(Executor):
    """Tokenises at once, so that no test waits for a thread."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Call it."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except JobError as error:
            future.set_exception(error)
        return future


class Scene:
    """One worker, the records of its partition, and every job that it ever had."""

    def __init__(self, harness: Harness, rng: random.Random) -> None:
        self.harness = harness
        self.values: list[Job | Cancel | bytes] = []
        self.entries: dict[Entry, None] = {}
        self._rng = rng
        self._generation = 3
        self._held = True
        harness.dispatcher._places._preparation._tokenizing = Inline()  # type: ignore[assignment]

    @property
    def jobs(self) -> list[Job]:
        """Those that were sent and whose tenant can be told."""
        return [each for each in self.values if isinstance(each, Job) and each.tenant != "nobody"]

    async def live(self, weights: dict[str, int], steps: int) -> None:
        """Take so many steps; after each of them every job is where its stage says."""
        for name in self._rng.choices([*weights], [*weights.values()], k=steps):
            if name == "wait":
                await self.wait()
            else:
                getattr(self, name)()
            self.check()

    async def end(self) -> None:
        """Let everything go well from now on, until nothing is left to be done."""
        self.harness.writer.failures.clear()
        self.answer()
        self.find_log()
        if not self._held:
            self.win()
        for _ in range(400):
            await asyncio.sleep(0)
            self.harness.lifecycle.tick()
            while (entry := self._running()) is not None:
                self.harness.step(Output(entry.key, (1,), "", finish="stop"))
            self.check()
            if not self.harness.state.unfinished and self.harness.answers.idle:
                return
        raise AssertionError([each.stage for each in self.entries])

    def check(self) -> None:
        """See that every job is where its stage says, and nowhere else."""
        dispatcher, answers = self.harness.dispatcher, self.harness.answers
        turns, window = dispatcher._turns, [*dispatcher._feed.waiting()]
        window += dispatcher._behind
        for entry in self.entries:
            places = {
                "waits": id(entry) in dispatcher._backlog._waiting
                or entry in turns._lonely
                or entry in turns._first
                or entry in turns._hurried.values(),
                "claimed": entry in dispatcher._claiming,
                "chosen": entry in dispatcher._places.chosen,
                "window": entry in window,
                "runs": dispatcher.find(entry.key) is entry,
            }
            assert places == {
                "waits": entry.stage is Stage.WAITING,
                "claimed": entry.stage is Stage.CLAIMING,
                "chosen": entry.stage in {Stage.PREPARING, Stage.FETCHING},
                "window": entry.stage in {Stage.GATHERING, Stage.DISPLACED},
                "runs": entry.stage is Stage.RUNNING,
            }, entry.stage
            assert entry.stage in WRITING or entry not in answers._streams, entry.stage
        assert self.harness.unexpected_events == 0

    # --- steps

    async def wait(self) -> None:
        """Let the worker go on for a while."""
        for _ in range(self._rng.randrange(40)):
            await asyncio.sleep(0)
            self.harness.lifecycle.tick()
            self.check()

    def send_job(self) -> None:
        """Send a job of one of a few names."""
        name = self._name()
        unknown = "nothing" if name == "j0" else None  # such an adapter is refused as it is fetched
        self._send(
            Job(
                id=name,
                tenant=tenant_of(name),
                prompt=name,
                adapter=unknown,
                sampling=Sampling(seed=1),
            )
        )

    def send_refused(self) -> None:
        """Send one that ends in an error before it waits."""
        name = f"r{self._name()}"
        self._send(Job(id=name, tenant=tenant_of(name), prompt="x", reply_partition=9))

    def send_without_topic(self) -> None:
        """Send one whose tenant cannot be told."""
        self._send(Job(id=self._name(), tenant="nobody", prompt="x"))

    def send_unreadable(self) -> None:
        """Send bytes."""
        self._send(b"\xc1")

    def cancel(self) -> None:
        """Cancel a job, if it is there."""
        name = self._name()
        self._send(Cancel(id=name, tenant=self._rng.choice([tenant_of(name), "nobody"])))

    def bring_token(self) -> None:
        """Let the engine go on with a job."""
        self._bring(ids=(1,))

    def bring_end(self) -> None:
        """Let the engine finish a job."""
        self._bring(ids=(2,), finish="stop")

    def fail_in_engine(self) -> None:
        """Let the engine give a job up."""
        self._bring(error=JobError(ErrorCode.INTERNAL, "!"))

    def run_out_of_time(self) -> None:
        """Let a job's deadline pass, whatever it is at."""
        if self.entries:
            entry = self._rng.choice([*self.entries])
            entry.deadline_ms = 0.0
            self.harness.lifecycle._deadlines.add(entry)
            self.harness.lifecycle.tick()

    def fail_append(self) -> None:
        """Let the next append fail; it may have landed."""
        self.harness.writer.failures.append(AppendError("RequestTimedOutError", hopeless=False))

    def fail_append_for_good(self) -> None:
        """Let the next append be refused."""
        error = AppendError("TopicAuthorizationFailedError", hopeless=True)
        self.harness.writer.failures.append(error)

    def lose_log(self) -> None:
        """Let every append to the tenant's replies fail from now on."""
        self.harness.writer.down["replies.acme"] = gone = asyncio.Event()
        gone.set()

    def find_log(self) -> None:
        """Let them succeed again."""
        self.harness.writer.down.clear()

    def hang(self) -> None:
        """Let appends wait for the broker."""
        self.harness.writer.held = self.harness.writer.held or asyncio.Event()

    def answer(self) -> None:
        """Let the broker answer again."""
        if self.harness.writer.held is not None:
            self.harness.writer.held.set()
            self.harness.writer.held = None

    def lose(self) -> None:
        """Lose the partition."""
        if self._held:
            self.harness.revoke(self.harness.state)
            self._held = False

    def lose_engine(self) -> None:
        """Leave because the engine failed, and come back as another process would."""
        self.harness.engine.lost = True
        self.harness.lifecycle.release_all()
        self.harness.engine.lost = False
        self.win_after_others()

    def win(self) -> None:
        """Win it again, in the next generation; what was not finished is delivered again."""
        self.lose()
        position = self.harness.state.position or 0
        self._generation += 1
        self.harness.assign(generation=self._generation, end_offset=len(self.values))
        self._held = True
        for offset in range(position, len(self.values)):
            self._deliver(offset)

    def win_after_others(self) -> None:
        """Win it again after somebody else had it and did nothing."""
        self._generation += 1
        self.win()

    def win_after_a_crash(self) -> None:
        """Win it again after another worker had claimed every job, and ended without a word."""
        self.lose()
        self._generation += 1
        alone = self._rng.random() < 0.5
        for name in {each.id for each in self.jobs}:
            epoch, worker = Epoch(self._generation, 1), f"w{self._generation}"
            claim = ClaimRecord(job=name, epoch=epoch, worker=worker, alone=alone)
            where = f"replies.{tenant_of(name)}", reply_partition(name, REPLY_PARTITIONS)
            log = self.harness.writer.logs[where]
            log.append((name.encode(), encode_reply(claim), {}))
        self.win()

    def _name(self) -> str:
        return f"j{self._rng.randrange(NAMES)}"

    def _send(self, value: Job | Cancel | bytes) -> None:
        self.values.append(value)
        if self._held:
            self._deliver(len(self.values) - 1)

    def _deliver(self, offset: int) -> None:
        value = self.values[offset]
        raw = value if isinstance(value, bytes) else encode_request(value)
        self.harness.deliver(self.harness.state, offset, raw)
        self.entries |= dict.fromkeys(self.harness.lifecycle._held.jobs)

    def _running(self) -> Entry | None:
        running = list(self.harness.dispatcher._feed)
        return self._rng.choice(running) if running else None

    def _bring(self, **output: Any) -> None:
        if (entry := self._running()) is not None:
            self.harness.step(Output(entry.key, **{"ids": (), "text": ""} | output))
