"""The engine's thread with an engine that counts, and what comes back to the event loop."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager

from aril.kernels.program import HERE
from aril.schemas import ErrorCode, JobError
from aril.worker.engine.request import GenerationRequest, Output
from aril.worker.engine.runner import EngineThread


class CountingEngine:
    """Answers each request with the numbers up to its max_tokens, one a step.

    A step waits until the test lets it, if the test holds it.
    """

    def __init__(self) -> None:
        self.running: dict[int, tuple[int, int]] = {}
        self.calls: list[str] = []
        self.threads: set[int] = set()
        self.go = threading.Event()
        self.go.set()
        self.entered = threading.Event()
        self.fail: BaseException | None = None
        # Whether a step, counted from 1, says that it begins to compute.
        self.tells: Callable[[int], bool] = lambda _: False

    @property
    def has_work(self) -> bool:
        """Whether any request is unfinished."""
        return bool(self.running)

    def submit(self, job: GenerationRequest) -> None:
        """Queue a request; those of more than 100 tokens are refused."""
        self.calls.append(f"submit {job.key}")
        if job.sampling.longest > 100:
            raise JobError(ErrorCode.LIMIT_EXCEEDED, "too long", limit=100)
        self.running[job.key] = (0, job.sampling.longest)

    def cancel(self, key: int) -> None:
        """Drop a request."""
        self.calls.append(f"cancel {key}")
        self.running.pop(key, None)

    def step(self) -> list[Output]:
        """Give each request its next number."""
        self.threads.add(threading.get_ident())
        self.calls.append("step")
        if HERE.before_long_run is not None and self.tells(self.calls.count("step")):
            HERE.before_long_run()
        self.entered.set()
        self.go.wait()
        if self.fail is not None:
            raise self.fail
        outputs = []
        for key, (at, end) in list(self.running.items()):
            last = at + 1 == end
            outputs.append(Output(key, (at,), finish="length" if last else None))
            self.running[key] = (at + 1, end)
            if last:
                del self.running[key]
        return outputs


class Listener:
    """Collects what comes back to the event loop."""

    def __init__(self) -> None:
        self.batches: list[list[Output]] = []
        self.failures: list[BaseException] = []
        self.threads: set[int] = set()
        self.changed = asyncio.Event()

    def on_outputs(self, outputs: Sequence[Output]) -> None:
        """Take a batch."""
        self.threads.add(threading.get_ident())
        self.batches.append(list(outputs))
        self.changed.set()

    def on_failure(self, error: BaseException) -> None:
        """Take the failure."""
        self.failures.append(error)
        self.changed.set()

    @property
    def outputs(self) -> list[Output]:
        """All outputs in order."""
        return [output for batch in self.batches for output in batch]

    def ids(self, key: int) -> list[int]:
        """Tokens of one request in order."""
        return [token for output in self.outputs if output.key == key for token in output.ids]

    async def until(self, condition: str, keys: Iterable[int] = ()) -> None:
        """Wait for all these keys to end, or for a failure."""
        wanted = set(keys)
        while True:
            if condition == "failed" and self.failures:
                return
            ended = {o.key for o in self.outputs if o.finish is not None or o.error is not None}
            if condition == "ended" and wanted <= ended:
                return
            self.changed.clear()
            await self.changed.wait()


@asynccontextmanager
async def running(engine: CountingEngine) -> AsyncIterator[tuple[EngineThread, Listener]]:
    """Start a thread around the engine and stop it in the end."""
    thread, listener = EngineThread(engine), Listener()
    thread.start(
        asyncio.get_running_loop(),
        on_outputs=listener.on_outputs,
        on_failure=listener.on_failure,
    )
    try:
        yield thread, listener
    finally:
        engine.go.set()
        await asyncio.to_thread(thread.close)
