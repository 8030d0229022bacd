"""The demo from start to end: what comes up in which order, and how all of it goes again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from aril.arguments import FAILED, OK
from aril.broker import BrokerError, EmbeddedBroker, free_port
from aril.client import Client
from aril.demo.board import Shown, display_for
from aril.demo.measure import JobTimes
from aril.demo.model import MODEL_NAME, ModelUnavailableError, ensure_model
from aril.demo.report import show_figures, show_voices
from aril.demo.tenants import TENANTS
from aril.demo.worker_process import WorkerFailed, WorkerProcess, read_metrics
from aril.errors import ArilError
from aril.schemas import DoneEvent, ResetEvent, Sampling, TokensEvent
from aril.worker.topics.admin import Contract, TopicsError, ensure_topics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from aril.demo.board import Display

ADAPTERS: Final = Path(__file__).parent / "adapters"
# Files and pipes have no width: as wide as most people's terminals.
PIPED_WIDTH: Final = 100
# Greedy, so that the demo says the same each time.
SAMPLING: Final = Sampling(max_tokens=64, temperature=0.0)
JOB_SECONDS: Final = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """What `aril demo` was told; without `bootstrap` it brings broker and worker itself."""

    bootstrap: str | None
    metrics: str | None
    cache: Path | None
    plain: bool


def run_demo(options: DemoOptions) -> int:
    """Run it; return the exit code. KeyboardInterrupt when told to stop: nothing is left behind."""
    # A closed terminal and a polite kill are like Ctrl-C here. That one is set, too: in the
    # background of a script it is ignored, and the others would be with it.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=PIPED_WIDTH, file=sys.stdout)
    console.print("[bold]Aril[/]: one backbone, three adapters, four tenants, one queue\n")
    try:
        # Not in the event loop: converting takes a while, and Ctrl-C must end it there and then.
        model = None if options.bootstrap else _model(console, options.cache)
        return asyncio.run(_run(console, options, model))
    except (
        ModelUnavailableError,
        BrokerError,
        WorkerFailed,
        TopicsError,
        ArilError,
    ) as error:
        console.print(f"[red]✗[/] {error}", markup=True)
        return FAILED


def _model(console: Console, cache: Path | None) -> Path:
    started = time.monotonic()
    if console.is_terminal:
        columns = (TextColumn("  model   "), BarColumn(), TextColumn("{task.description}"))
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task("", total=1.0)
            folder = ensure_model(
                cache,
                lambda what, part: progress.update(task, description=what, completed=part),
            )
    else:
        folder = ensure_model(cache, lambda what, part: print(f"  {what} ({part:.0%})", flush=True))
    _stage_done(console, "model", f"{MODEL_NAME} in {_short(folder)}", started)
    return folder


def _cores() -> int:
    # One is left to broker and tenants: threads of a step that wait for a core they do not get
    # cost more than they bring (docs/decisions/055).
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _short(path: Path) -> str:
    with contextlib.suppress(ValueError):
        return f"~/{path.relative_to(Path.home())}"
    return str(path)


def _stage_done(console: Console, name: str, text: str, started: float) -> None:
    seconds = time.monotonic() - started
    console.print(f"[green]✓[/] {name:<8} {text} [dim]{seconds:.1f} s[/]")


@contextlib.contextmanager
def _stage(console: Console, name: str, text: str) -> Iterator[Callable[[str], None]]:
    """Show that a stage is under way, and that it is done; yields how to say what it waits for."""
    started = time.monotonic()
    with console.status(f"{name:<8} {text}") as status:
        yield lambda waiting: status.update(f"{name:<8} {text} [dim]{waiting}[/]")
    _stage_done(console, name, text, started)


async def _run(console: Console, options: DemoOptions, model: Path | None) -> int:
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.getsignal(signal.SIGINT))
    async with AsyncExitStack() as stack:
        bootstrap, metrics = options.bootstrap, options.metrics
        if bootstrap is None:
            broker = EmbeddedBroker()
            with _stage(console, "broker", "embedded, in memory"):
                await stack.enter_async_context(broker)
            bootstrap = broker.bootstrap
        names = [tenant.name for tenant in TENANTS]
        with _stage(console, "topics", f"jobs, jobs.dlq, replies of {', '.join(names)}"):
            await ensure_topics(bootstrap, Contract(), names)
        if model is not None:
            metrics = await _start_worker(console, stack, bootstrap, model)
        return await _ask(console, options, bootstrap, metrics)


async def _start_worker(
    console: Console, stack: AsyncExitStack, bootstrap: str, model: Path
) -> str:
    address = f"127.0.0.1:{free_port()}"
    settings = {
        "ARIL_BOOTSTRAP": bootstrap,
        "ARIL_MODEL": str(model),
        "ARIL_ADAPTERS": str(ADAPTERS),
        "ARIL_HTTP": address,
        "ARIL_WINDOW_MS": "50",
        "ARIL_THREADS": str(max(1, _cores() - 1)),
        "ARIL_DRAIN_SECONDS": "2",
        "ARIL_LOG_FORMAT": "console",
    }
    with _stage(console, "worker", f"a process of its own, http://{address}") as tell:
        worker = await stack.enter_async_context(WorkerProcess(settings, address=address))
        await worker.wait_until_ready(tell)
    return f"http://{address}/metrics"


async def _ask(console: Console, options: DemoOptions, bootstrap: str, metrics: str | None) -> int:
    jobs = [
        Shown(tenant, number, question)
        for tenant in TENANTS
        for number, question in enumerate(tenant.questions, start=1)
    ]
    before = await read_metrics(metrics) if metrics else ""
    async with AsyncExitStack() as stack:
        clients = {
            tenant: await stack.enter_async_context(Client(bootstrap, tenant.name))
            for tenant in TENANTS
        }
        console.print(f"\n[bold]{len(jobs)} jobs of {len(clients)} tenants at once[/]\n")
        with display_for(console, jobs, plain=options.plain) as display:
            times = await asyncio.gather(*(_one(clients[job.tenant], job, display) for job in jobs))
    after = await read_metrics(metrics) if metrics else ""
    show_voices(console, jobs)
    by_tenant = {
        tenant: [took for job, took in zip(jobs, times, strict=True) if job.tenant is tenant]
        for tenant in TENANTS
    }
    show_figures(console, by_tenant, before, after)
    failed = sum(job.state != "✓" for job in jobs)
    if failed:
        console.print(f"[red]✗[/] {failed} jobs failed")
    return FAILED if failed else OK


async def _one(client: Client, job: Shown, display: Display) -> JobTimes:
    times = JobTimes(sent=time.monotonic())
    stream = client.stream(
        messages=[{"role": "user", "content": job.question}],
        adapter=job.tenant.adapter,
        sampling=SAMPLING,
        timeout=JOB_SECONDS,
    )
    try:
        async for event in stream:
            if isinstance(event, TokensEvent):
                times.arrived(time.monotonic(), len(event.ids))
                display.text(job, event.text)
            elif isinstance(event, ResetEvent):
                times.restarted()
                display.reset(job)
            elif isinstance(event, DoneEvent):
                display.text(job, event.text)
                display.end(job, "✓", f"{event.usage.completion_tokens} tokens")
    except ArilError as error:
        display.end(job, "✗", str(error))
    return times
