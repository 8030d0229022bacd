"""Worker processes on a real broker: they share, join, leave and die, and no answer is lost."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest

from aril.schemas import DoneEvent, ResetEvent, TokensEvent, TokensRecord, VisibleStream
from tests.integration.conftest import TENANTS
from tests.support.constrained import FORMS
from tests.support.group_protocols import by_either_protocol

if TYPE_CHECKING:
    from aril import Client, Completion
    from tests.integration.conftest import Site

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(280)]

TOKENS = 24


async def serve(site: Site, jobs: int, during: asyncio.Event | None = None) -> Counter[str]:
    """Send jobs of all tenants at once and wait for the answers; return resets by tenant.

    ``during`` is set once the first answers have begun.
    """
    resets: Counter[str] = Counter()

    async def ask(client: Client, number: int) -> None:
        stream = client.stream(
            f"question {number}",
            job_id=f"job-{number}",
            adapter=TENANTS[client.tenant],
            sampling={"max_tokens": TOKENS, "temperature": 0.0, "ignore_eos": True},
            timeout=200,
        )
        async for _ in stream:
            if during is not None:
                during.set()
        answer = await stream.result()
        assert len(answer.token_ids) == TOKENS
        resets[client.tenant] += answer.resets

    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(site.client(tenant)) for tenant in TENANTS]
        async with asyncio.TaskGroup() as tasks:
            for number in range(jobs):
                tasks.create_task(ask(clients[number % len(clients)], number))
    return resets


async def writers_of(site: Site, jobs: int) -> Counter[str]:
    """Check that every job has one visible terminal for each reader; return who wrote them."""
    writers: Counter[str] = Counter()
    answered = 0
    for tenant in TENANTS:
        for job, records in (await site.logs(tenant)).items():
            reader = VisibleStream()
            ends = [
                event
                for record in records
                for event in reader.feed(record)
                if isinstance(event, DoneEvent)
            ]
            assert len(ends) == 1, f"{tenant}/{job}: {len(ends)} visible terminals"
            assert reader.count == TOKENS
            assert reader.writer is not None
            writers[reader.writer] += 1
            answered += 1
    assert answered == jobs
    return writers


@by_either_protocol
async def test_two_workers_share_two_hundred_jobs(site: Site) -> None:
    """One group, eight partitions, two processes: each job is answered once, both take part."""
    async with site.worker("one") as one, site.worker("two") as two:
        resets = await serve(site, 200)
        writers = await writers_of(site, 200)
        assert len(writers) == 2
        print(f"jobs by worker {sorted(writers.values())}")
        for worker in (one, two):
            assert await worker.metric("aril_jobs_total") > 0
            assert await worker.stop() == 0
    assert resets.total() == 0


@by_either_protocol
async def test_joining_and_leaving_under_load_loses_nothing(site: Site) -> None:
    """A worker joins while jobs stream, another drains and leaves: every job is answered once."""
    begun = asyncio.Event()
    async with site.worker("one") as one, site.worker("two") as two:
        load = asyncio.create_task(serve(site, 120, begun))
        await begun.wait()
        async with site.worker("three"):
            assert await one.stop() == 0
            resets = await load
            await writers_of(site, 120)
        assert two.exit_code is None
    assert resets.total() == 0


@pytest.mark.slow
@by_either_protocol
async def test_a_killed_worker_loses_nothing(site: Site) -> None:
    """Kill -9 in mid-stream: the other worker answers every job, and readers see one terminal.

    The common run has it from the fault harness, without a model.
    """
    begun = asyncio.Event()
    async with site.worker("one") as one, site.worker("two"):
        load = asyncio.create_task(serve(site, 60, begun))
        await begun.wait()
        one.signal(signal.SIGKILL)
        resets = await load
        await writers_of(site, 60)
    assert resets.total() == 0


@pytest.mark.slow
@by_either_protocol
async def test_in_invariant_mode_a_crash_changes_no_token(site: Site) -> None:
    """Answers with their logprobs, and their prompts': undisturbed, and with kill -9 in between.

    Every third is held to a form, and is of it where it is whole.
    """
    whole: Counter[str] = Counter()

    async def ask(client: Client, number: int, name: str, begun: asyncio.Event) -> list[object]:
        form = None if number % 3 else FORMS[number // 3 % len(FORMS)]
        stream = client.stream(
            f"question {number}",
            job_id=f"{name}-{number}",
            adapter=TENANTS[client.tenant],
            sampling={
                "max_tokens": 60,
                "temperature": 1.2,
                "seed": number,
                "logprobs": 2,
                "prompt_logprobs": 1,
                "ignore_eos": True,
                **(form.fields if form else {}),
            },
            timeout=200,
        )
        seen: list[object] = []
        async for event in stream:
            if isinstance(event, TokensEvent):
                begun.set()
                seen += zip(event.ids, event.logprobs or (), strict=True)
            if isinstance(event, DoneEvent):
                assert event.prompt_logprobs is not None
                assert len(event.prompt_logprobs) == event.usage.prompt_tokens
                seen.append(event.prompt_logprobs)
            assert not isinstance(event, ResetEvent)
        answer = await stream.result()
        if form is not None and answer.finish_reason == "stop":
            assert form.fault(answer.text) is None
            whole[name] += 1
        return seen

    async def ask_all(name: str, begun: asyncio.Event) -> list[list[object]]:
        async with AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(site.client(tenant)) for tenant in TENANTS]
            numbered = [(clients[number % len(clients)], number) for number in range(24)]
            return await asyncio.gather(
                *(ask(client, number, name, begun) for client, number in numbered)
            )

    async with site.worker("one", invariant=True):
        undisturbed = await ask_all("calm", asyncio.Event())
    begun = asyncio.Event()
    async with (
        site.worker("two", invariant=True, max_rows=5) as two,
        site.worker("three", invariant=True, max_rows=7) as three,
    ):
        load = asyncio.create_task(ask_all("storm", begun))
        await begun.wait()
        two.signal(signal.SIGKILL)
        assert await load == undisturbed
        assert whole["storm"] == whole["calm"] > 0
        assert await three.metric("aril_claims_total") > 0


async def test_an_adapter_changes_the_answer_whoever_shares_the_batch(site: Site) -> None:
    """The same question: each tenant's own voice, the same alone and among all the others.

    In invariant mode: else a prompt that comes in by other pieces rounds otherwise.
    """
    async with site.worker("one", invariant=1), AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(site.client(tenant)) for tenant in TENANTS]
        greedy = {"max_tokens": 12, "temperature": 0.0, "ignore_eos": True}

        async def ask(client: Client) -> tuple[int, ...]:
            answer = await client.complete(
                "the capital of", adapter=TENANTS[client.tenant], sampling=greedy, timeout=100
            )
            assert answer.adapter == TENANTS[client.tenant]
            assert (answer.digest is None) == (answer.adapter is None)
            return answer.token_ids

        alone = [await ask(client) for client in clients]
        crowd = [client for client in clients for _ in range(3)]
        together = await asyncio.gather(*map(ask, crowd))
    assert len(set(alone)) == len(TENANTS)
    assert together == [answer for answer in alone for _ in range(3)]


async def test_tokens_stream_while_the_job_runs(site: Site) -> None:
    """The first token is in the log before the last is made: it is a stream, not a reply."""
    async with site.worker("one"), site.client("visitor") as client:
        events = [
            event
            async for event in client.stream(
                "count", job_id="j", sampling={"max_tokens": 64, "ignore_eos": True}, timeout=100
            )
        ]
        assert len(events) > 2
        records = (await site.logs("visitor"))["j"]
        tokens = [record for record in records if isinstance(record, TokensRecord)]
        assert len(tokens) > 1


@by_either_protocol
async def test_a_job_that_is_sent_again_has_the_first_answer(site: Site) -> None:
    """By programs that know nothing of each other: before, during and after the first answer."""
    sampling = {"max_tokens": 200, "ignore_eos": True}

    async def ask(started: asyncio.Event | None = None) -> Completion:
        async with site.client("acme") as client:
            stream = client.stream("hi", job_id="order-81", sampling=sampling, timeout=60)
            async for _ in stream:
                if started is not None:
                    started.set()
            return await stream.result()

    async with asyncio.TaskGroup() as tasks:
        begun = asyncio.Event()
        answers = [tasks.create_task(ask(begun)), tasks.create_task(ask())]
        async with site.worker("one"):
            await begun.wait()
            answers.append(tasks.create_task(ask()))
            await answers[0]
            answers.append(tasks.create_task(ask()))
            await asyncio.wait(answers)
    first, *others = [task.result() for task in answers]
    assert len(first.token_ids) == 200
    assert all(other == first for other in others)
