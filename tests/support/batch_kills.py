"""Batches at two gateways and in `aril batch run`, while gateways, workers and clients are killed.

Half of the lines are a few batches of `/v1/batches`, whose folder both gateways share; the other
half are files of `aril batch run`. In the end each line is looked for in what these have brought,
and the jobs that were asked in the reply log.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import time
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import aiohttp

from aril.schemas import DoneEvent, VisibleStream, decode_redirect, decode_reply
from tests.support.batch_process import BatchProcess
from tests.support.batch_site import chat_line
from tests.support.gateway_files import OVER, jsonl, wanted
from tests.support.gateway_kills import kill
from tests.support.gateway_stand import KEY, TENANT, gateway_of, make_topics, worker_of
from tests.support.topic_records import read_topic

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from aril.worker.topics.admin import Contract
    from tests.support.brokers import Kafka
    from tests.support.gateway_process import GatewayProcess

PACE: Final = "0.02"
TOKENS: Final = 8
BATCHES: Final = 4
CLIENTS: Final = 2
CONCURRENCY: Final = 32
APART_SECONDS: Final = (0.5, 2.0)
RETRY_SECONDS: Final = 0.5
TELL_SECONDS: Final = 10.0
REPLY_PARTITIONS: Final = 4
ANSWERED: Final = 200


@dataclass
class Outcome:
    """What came of it."""

    killed: Counter[str] = field(default_factory=Counter)
    """Gateways, workers, clients."""
    lines: int = 0
    answered: int = 0
    lost: int = 0
    twice: int = 0
    """Lines with more than one answer, or with two that are not one answer told twice."""
    asked_again: int = 0
    """Jobs under ids that no answer names: what was asked a second time."""
    ends: int = 0
    """Visible ends in the reply log: what was computed, once or again."""
    seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)


class Site:
    """Gateways that share a folder, workers without a model, clients."""

    def __init__(self, kafka: Kafka, contract: Contract, folder: Path, outcome: Outcome) -> None:
        self.kafka, self.contract, self.folder, self.outcome = kafka, contract, folder, outcome
        self.gateways = [gateway_of(kafka, contract, folder, f"gateway-{at}") for at in range(2)]
        self.workers = [
            worker_of(kafka, contract, folder, f"worker-{at}", model=folder, adapters=folder)
            for at in range(2)
        ]
        for worker in self.workers:
            worker.module = ("tests.support.paced_worker", PACE)
        self.written: dict[str, int] = {}
        """Lines of each batch that are answered, as a gateway has told last."""
        self._turn = itertools.count()

    def gateway(self) -> GatewayProcess:
        """Return one after the other."""
        return self.gateways[next(self._turn) % len(self.gateways)]


async def kill_and_answer(
    kafka: Kafka,
    folder: Path,
    *,
    lines: int,
    seed: int = 1,
    kills: int | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Ask so many lines while something is killed each second or so; `kills`: no more than that.

    `tell` is told each ten seconds how far it is.
    """
    chance, outcome = random.Random(seed), Outcome(lines=lines)
    contract = await asyncio.to_thread(make_topics, kafka)
    site = Site(kafka, contract, folder, outcome)
    parts = _parts(lines, BATCHES + CLIENTS)
    headers = {"authorization": f"Bearer {KEY}"}
    timeout = aiohttp.ClientTimeout(total=60)
    async with AsyncExitStack() as held:
        for process in (*site.gateways, *site.workers):
            await held.enter_async_context(process.started())
        await asyncio.gather(*(each.ready() for each in (*site.gateways, *site.workers)))
        http = await held.enter_async_context(
            aiohttp.ClientSession(headers=headers, timeout=timeout)
        )
        begun = time.monotonic()
        batches = [await _made(http, site, part) for part in parts[:BATCHES]]
        clients = [
            Client(site, part, folder / f"client-{at}") for at, part in enumerate(parts[BATCHES:])
        ]
        working = asyncio.gather(
            *(_over(http, site, each) for each in batches), *(each.run() for each in clients)
        )
        killing = asyncio.create_task(_kill(site, clients, chance, kills))
        telling = asyncio.create_task(_tell(site, clients, begun, tell))
        try:
            told = (await working)[:BATCHES]
        finally:
            killing.cancel()
            telling.cancel()
            await asyncio.gather(killing, telling, return_exceptions=True)
            for client in clients:
                client.kill()
        if killing.done() and not killing.cancelled() and (error := killing.exception()):
            raise error
        outcome.seconds = time.monotonic() - begun
        await asyncio.gather(*(each.ready() for each in site.gateways))
        found = [each for client in clients for each in client.records()]
        for batch in told:
            found += await _results(http, site, batch)
        await _count(site, [key for part in parts for key in part], found)
    return outcome


def _parts(lines: int, many: int) -> list[list[str]]:
    keys = [f"k{at}" for at in range(lines)]
    return [keys[at::many] for at in range(many)]


def _lines(keys: list[str]) -> bytes:
    return jsonl(
        *(chat_line(key, f"question {key}", max_tokens=TOKENS, ignore_eos=True) for key in keys)
    )


async def _made(http: aiohttp.ClientSession, site: Site, keys: list[str]) -> str:
    """Make a batch at one of the gateways."""
    url = site.gateway().url
    form = aiohttp.FormData({"purpose": "batch"})
    form.add_field("file", _lines(keys), filename="in.jsonl")
    async with http.post(f"{url}/v1/files", data=form, raise_for_status=True) as answer:
        file = (await answer.json())["id"]
    body = wanted(file)
    async with http.post(f"{url}/v1/batches", json=body, raise_for_status=True) as answer:
        name: str = (await answer.json())["id"]
    return name


async def _over(http: aiohttp.ClientSession, site: Site, name: str) -> dict[str, Any]:
    """Ask one gateway or the other how a batch stands, until it is over."""
    while True:
        try:
            async with http.get(f"{site.gateway().url}/v1/batches/{name}") as answer:
                if answer.status == ANSWERED:
                    told: dict[str, Any] = await answer.json()
                    site.written[name] = sum(
                        told["request_counts"][each] for each in ("completed", "failed")
                    )
                    if told["status"] in OVER:
                        return told
        except (aiohttp.ClientError, TimeoutError, OSError):
            pass  # it is being killed
        await asyncio.sleep(RETRY_SECONDS)


async def _results(
    http: aiohttp.ClientSession, site: Site, batch: dict[str, Any]
) -> list[dict[str, Any]]:
    if batch["status"] != "completed":
        site.outcome.wrong.append(f"{batch['id']} is {batch['status']}: {batch['errors']}")
    found: list[dict[str, Any]] = []
    for file in (batch["output_file_id"], batch["error_file_id"]):
        if file is not None:
            url = f"{site.gateway().url}/v1/files/{file}/content"
            async with http.get(url, raise_for_status=True) as answer:
                found += map(json.loads, (await answer.text()).splitlines())
    return found


class Client:
    """One `aril batch run`, started again whenever it was killed."""

    def __init__(self, site: Site, keys: list[str], folder: Path) -> None:
        folder.mkdir()
        source = folder / "in.jsonl"
        source.write_bytes(_lines(keys))
        self._batch = BatchProcess(
            site.kafka, site.contract, source, folder / "out.jsonl", concurrency=CONCURRENCY
        )
        self._outcome = site.outcome
        self._process = self._batch.start()

    async def run(self) -> None:
        """Wait for its end."""
        while True:
            _, said = await asyncio.to_thread(self._process.communicate)
            if self._process.returncode >= 0:
                if self._process.returncode:
                    self._outcome.wrong.append(said)
                return
            self._process = self._batch.start()

    def kill(self) -> bool:
        """Kill it; return whether it ran."""
        runs = self._process.poll() is None
        self._process.kill()
        return runs

    def answered(self) -> int:
        """Count what it has written so far."""
        return self._batch.answered()

    def records(self) -> list[dict[str, Any]]:
        """Return what it has written."""
        return [json.loads(line) for line in self._batch.output.read_text().splitlines()]


async def _kill(site: Site, clients: list[Client], chance: random.Random, most: int | None) -> None:
    """Kill a gateway, a worker, a client, in turn."""
    for number in itertools.count():
        if number == most:
            return
        await asyncio.sleep(chance.uniform(*APART_SECONDS))
        match number % 3:
            case 0:
                await kill(site.gateways, chance.randrange(2))
                site.outcome.killed["gateways"] += 1
            case 1:
                await kill(site.workers, chance.randrange(2))
                site.outcome.killed["workers"] += 1
            case _:
                site.outcome.killed["clients"] += chance.choice(clients).kill()


async def _tell(
    site: Site, clients: list[Client], begun: float, tell: Callable[[str], None]
) -> None:
    while True:
        await asyncio.sleep(TELL_SECONDS)
        answered = sum(site.written.values()) + sum(each.answered() for each in clients)
        seconds, killed = time.monotonic() - begun, site.outcome.killed.total()
        tell(f"{seconds:.0f} s: {answered} of {site.outcome.lines} lines, {killed} killed")


async def _count(site: Site, keys: list[str], found: list[dict[str, Any]]) -> None:
    """Count lines in what was brought, and jobs in the log."""
    outcome = site.outcome
    counts = Counter(each["custom_id"] for each in found)
    outcome.lost = sum(counts[key] == 0 for key in keys)
    outcome.twice = sum(counts[key] > 1 for key in keys)
    for each in found:
        tokens = None
        if each["error"] is None:
            outcome.answered += 1
            tokens = each["response"]["body"]["usage"]["completion_tokens"]
        if tokens != TOKENS or each["custom_id"] not in counts.keys() & set(keys):
            outcome.wrong.append(f"{each['custom_id']}: {tokens} tokens, {each['error']}")
    named = {each["response"]["request_id"] for each in found if each["response"]}
    readers: dict[str, VisibleStream] = {}
    topic = site.contract.replies_prefix + TENANT
    for record in await read_topic(site.kafka.bootstrap, topic):
        job = record.key.decode()
        if decode_redirect(record.value, job) is None:
            reply = decode_reply(record.value)
            events = readers.setdefault(job, VisibleStream()).feed(reply) if reply else []
            outcome.ends += sum(isinstance(event, DoneEvent) for event in events)
    outcome.asked_again = len(readers.keys() - named)
