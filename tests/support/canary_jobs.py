"""What tenants write, marked, through every way that it can go wrong; logs go to standard error.

    python -m tests.support.canary_jobs json|console

Prints how each job ended, then what `/metrics` and the probes would say.
"""

from __future__ import annotations

import asyncio
import errno
import json
import sys
from typing import TYPE_CHECKING

from jinja2 import TemplateError
from prometheus_client import generate_latest

from aril.schemas import Job, Message, Sampling, encode_request
from aril.worker.batching.prompts import Prompts
from aril.worker.engine.request import GenerationRequest, Output
from aril.worker.engine.runner import EngineThread
from aril.worker.observe.health import Health
from aril.worker.observe.logs import configure_logs, log_loop_errors
from aril.worker.settings import load_settings
from tests.support.harness import Harness

if TYPE_CHECKING:
    from aril.worker.adapters import AdapterWeights

MARK = "kumquat-7f3a"
RAISED = {
    "type": TypeError(f"can only join str, not {MARK}"),
    "value": ValueError(f"bad content: {MARK}"),
    "template": TemplateError(f"no such role in {MARK}"),
    "unicode": UnicodeEncodeError("utf-8", MARK, 0, 1, f"surrogates in {MARK}"),
    "os": OSError(errno.EIO, f"cannot read {MARK}", f"/store/{MARK}"),
}


class BrokenTokenizer:
    """Raises what the first word of a prompt names, with all of it in the message."""

    chat_template = "x"

    def apply_chat_template(self, messages: list[dict[str, str]], **_: object) -> str:
        """Raise."""
        raise RAISED[messages[0]["content"].split()[0]]

    def encode(self, text: str, **_: object) -> list[int]:
        """Raise, but for a prompt that is to reach the engine."""
        if (error := RAISED.get(text.split(maxsplit=1)[0])) is not None:
            raise error
        return list(text.encode())


class BrokenStore:
    """A store that cannot be read just now."""

    async def get(self, tenant: str, name: str) -> AdapterWeights:
        """Raise."""
        raise OSError(errno.EIO, f"cannot read {tenant}/{name}", f"/store/{tenant}/{name}")


class BrokenEngine:
    """Refuses one request in an unforeseen way; a step with another raises."""

    has_work = False

    def submit(self, request: GenerationRequest) -> None:
        """Raise for the first, take the second."""
        if request.key == 1:
            raise ValueError(f"{MARK} {request!r}")
        self.has_work = True

    def cancel(self, key: int) -> None:
        """Know nothing."""

    def step(self) -> list[Output]:
        """Raise."""
        raise RuntimeError(f"step: {MARK}")


async def through_the_lifecycle() -> None:
    """Jobs that fail as they are prepared, as they are passed on, as they are read."""
    tokenizer = BrokenTokenizer()
    prompts = Prompts(
        tokenizer, vocab_size=256, context=4096, max_prompt_tokens=2048, max_new_tokens=1024
    )
    async with Harness(prompts=prompts, adapters=BrokenStore(), max_rows=32) as harness:
        jobs = [Job(id=f"prompt-{kind}", tenant="acme", prompt=f"{kind} {MARK}") for kind in RAISED]
        jobs += [
            Job(
                id=f"messages-{kind}",
                tenant="acme",
                messages=(Message(role="user", content=f"{kind} {MARK}"),),
                metadata={"k": MARK},
            )
            for kind in RAISED
        ]
        jobs.append(Job(id="adapter", tenant="acme", prompt=MARK, adapter=MARK))
        jobs.append(Job(id="output", tenant="acme", prompt=MARK, sampling=Sampling(stop=(MARK,))))
        jobs.append(Job(id="reply", tenant="acme", prompt=f"{MARK} 2"))
        for job in jobs:
            harness.send(job)
        good = encode_request(jobs[-1])
        harness.send(good[:-3])
        harness.send(good.replace(b"sampling", b"sampler!"))
        harness.send(good.replace(MARK.encode(), MARK[:-1].encode() + b"\xff"))
        await harness.settle()
        unencodable = Output(harness.key_of(MARK), (1,), "a", logprobs=(MARK,))  # type: ignore[arg-type]
        harness.step(unencodable)
        harness.step(Output(harness.key_of(f"{MARK} 2"), (1,), f"{MARK} \ud800", finish="stop"))
        await harness.settle()
        for job in jobs:
            told = harness.visible("acme", job.id).terminal
            print(job.id, getattr(told, "code", None))
        print(len(harness.dead_letters), "dead letters")
        print(generate_latest(harness.metrics.registry).decode())


async def through_the_engine() -> None:
    """One request that cannot be begun, one whose step ends the engine."""
    failed = asyncio.Event()
    engine = EngineThread(BrokenEngine())
    engine.start(
        asyncio.get_running_loop(),
        on_outputs=lambda outputs: print([each.error for each in outputs]),
        on_failure=lambda _: failed.set(),
    )
    engine.submit(
        GenerationRequest(
            key=key, prompt_ids=(1,), sampling=Sampling(stop=(MARK,)), seed=0, adapter=None
        )
        for key in (1, 2)
    )
    await failed.wait()
    engine.close()


async def by_accident() -> None:
    """Exceptions that nobody awaits, whose call has what a tenant wrote among its arguments."""

    async def task(text: str) -> None:
        raise ValueError(text)

    asyncio.get_running_loop().call_soon(int, MARK)
    lost = asyncio.create_task(task(MARK))
    await asyncio.sleep(0.01)
    del lost


async def main(form: str) -> None:
    """Go all ways."""
    settings = load_settings(flags={"log_format": form}).settings
    configure_logs(settings)
    log_loop_errors(asyncio.get_running_loop())
    await through_the_lifecycle()
    await through_the_engine()
    await by_accident()
    health = Health()
    health.watch_engine(lambda: 1e6)
    print(json.dumps([health.liveness(), health.readiness()]))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
