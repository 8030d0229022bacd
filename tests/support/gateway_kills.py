"""Two gateways and two workers that are killed in turn, while readers go on where they stood.

A reader is an HTTP client that knows nothing but the protocol: it names the last event's id at the
other gateway, or, before there was one, sends its request again under its key. What it has put
together is compared with the answer as it lies in the log.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import signal
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import aiohttp

from tests.support.asgi import parse_events
from tests.support.gateway_stand import KEY, gateway_of, make_topics, worker_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.asgi import SentEvent
    from tests.support.brokers import Kafka
    from tests.support.gateway_process import GatewayProcess
    from tests.support.workers import WorkerProcess

PACED: Final = ("tests.support.paced_worker", "0.02")  # each token's text is another moment
TOKENS: Final = 200
READERS: Final = 4
APART_SECONDS: Final = (0.3, 1.5)
RETRY_SECONDS: Final = 0.2
SILENT_SECONDS: Final = 30.0
LONGEST_SECONDS: Final = 180.0
TEXT: Final = "/v1/completions"


@dataclass
class Outcome:
    """What came of it."""

    gateways: int = 0  # killed
    workers: int = 0
    answers: int = 0
    resumed: int = 0  # went on behind an event
    repeated: int = 0  # sent again, under the same key, before there was one
    tokens: int = 0
    wrong: list[str] = field(default_factory=list)

    @property
    def kills(self) -> int:
        """How many processes were killed."""
        return self.gateways + self.workers


class Broken(Exception):  # noqa: N818 - named for what happened
    """A stream that broke off before its end."""


class Readers:
    """Ask and read until told to end; whatever a gateway says is checked."""

    def __init__(self, gateways: list[GatewayProcess], outcome: Outcome) -> None:
        self._gateways = gateways
        self._outcome = outcome
        self._turn = itertools.count()
        self.ending = False

    async def run(self, name: str) -> None:
        """Ask one after the other."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=SILENT_SECONDS)
        headers = {"authorization": f"Bearer {KEY}"}
        async with aiohttp.ClientSession(timeout=timeout, headers=headers) as http:
            for number in itertools.count():
                if self.ending:
                    return
                async with asyncio.timeout(LONGEST_SECONDS):
                    await self._one(http, f"{name}-{number}")

    async def _one(self, http: aiohttp.ClientSession, key: str) -> None:
        body = {"model": "aril", "prompt": key, "max_tokens": TOKENS, "stream": True}
        events: list[SentEvent] = []
        while not (events and events[-1].data == "[DONE]"):
            told = {"idempotency-key": key}
            if events:
                told = {"last-event-id": str(events[-1].id)}
            try:
                async for event in self._stream(http, body, told):
                    events.append(event)  # noqa: PERF401 - what came before it broke counts
            except (Broken, aiohttp.ClientError, TimeoutError, OSError):
                if events:
                    self._outcome.resumed += 1
                else:
                    self._outcome.repeated += 1
                await asyncio.sleep(RETRY_SECONDS)
        await self._check(http, key, events[:-1])

    async def _stream(
        self, http: aiohttp.ClientSession, body: dict[str, Any], headers: dict[str, str]
    ) -> AsyncIterator[SentEvent]:
        async with http.post(self._next_url() + TEXT, json=body, headers=headers) as answer:
            if answer.status != 200:
                if answer.status < 500:
                    self._outcome.wrong.append(f"{answer.status}: {await answer.text()}")
                raise Broken
            while True:
                try:
                    block = await answer.content.readuntil(b"\n\n")
                except asyncio.IncompleteReadError:
                    raise Broken from None
                for event in parse_events(block):
                    if event.comment:
                        continue
                    if '"error":' in event.data[:10]:
                        if not event.json["error"]["retryable"]:
                            self._outcome.wrong.append(event.data)
                        raise Broken
                    yield event
                    if event.data == "[DONE]":
                        return

    async def _check(self, http: aiohttp.ClientSession, key: str, events: list[SentEvent]) -> None:
        """Compare with the answer in the log, and with what was asked for."""
        outcome = self._outcome
        choices = [each.json["choices"][0] for each in events]
        text = "".join(each["text"] for each in choices)
        places = [each.id for each in events]
        whole = await self._whole(http, events[-1].json["id"])
        outcome.answers += 1
        outcome.tokens += len(text.split())
        for wrong, what in (
            (text != whole, "is not what the log has"),
            (len(text.split()) != TOKENS, f"has {len(text.split())} tokens"),
            (len(set(text.split())) != len(text.split()), "has a token twice"),
            (len(set(places)) != len(places), "has an event twice"),
            ([each["finish_reason"] for each in choices[-1:]] != ["length"], "has no end"),
        ):
            if wrong:
                outcome.wrong.append(f"{key} {what}")

    async def _whole(self, http: aiohttp.ClientSession, answer: str) -> str:
        while True:
            try:
                async with http.get(f"{self._next_url()}{TEXT}/{answer}") as found:
                    if found.status == 200:
                        text: str = (await found.json())["choices"][0]["text"]
                        return text
            except (aiohttp.ClientError, TimeoutError, OSError):
                pass
            await asyncio.sleep(RETRY_SECONDS)

    def _next_url(self) -> str:
        return self._gateways[next(self._turn) % len(self._gateways)].url


async def kill_and_read(kafka: Kafka, folder: Path, *, kills: int, seed: int = 1) -> Outcome:
    """Kill so many processes, gateways and workers in turn, with `READERS` streams open."""
    chance, outcome = random.Random(seed), Outcome()
    contract = await asyncio.to_thread(make_topics, kafka)
    gateways = [gateway_of(kafka, contract, folder, f"gateway-{at}") for at in range(2)]
    workers = [
        worker_of(kafka, contract, folder, f"worker-{at}", model=folder, adapters=folder)
        for at in range(2)
    ]
    for worker in workers:
        worker.module = PACED
    async with AsyncExitStack() as held:
        for process in (*gateways, *workers):
            await held.enter_async_context(process.started())
        await asyncio.gather(*(process.ready() for process in (*gateways, *workers)))
        readers = Readers(gateways, outcome)
        reading = asyncio.gather(*(readers.run(f"r{seed}-{at}") for at in range(READERS)))
        try:
            for number in range(kills):
                await asyncio.sleep(chance.uniform(*APART_SECONDS))
                among = gateways if number % 2 == 0 else workers
                await kill(among, chance.randrange(2))
                outcome.gateways += among is gateways
                outcome.workers += among is not gateways
                if reading.done():
                    break
            readers.ending = True
            await reading
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
    return outcome


async def kill(among: list[Any], at: int) -> None:
    """Kill one, and start it again; the other is ready before, so that somebody always is."""
    await among[1 - at].ready()
    process: WorkerProcess = among[at]
    process.signal(signal.SIGKILL)
    await process.wait()
    process._start()
