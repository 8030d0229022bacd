"""A site for the client in Go: topics, its example program at work, the Python client beside it."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from aril import Client
from aril.worker.topics.admin import Contract, TopicPlan, ensure_topics
from tests.integration.conftest import Site

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from aril import Signer
    from tests.support.brokers import Kafka

TENANT = "acme"
PARTITIONS = 8
PROMPT = "the captain said"


def new_site(name: str, kafka: Kafka, folder: Path, models: tuple[Path, Path]) -> Site:
    """Create topics of its own."""
    contract = Contract(
        jobs_topic=f"jobs-{name}", dlq_topic=f"dlq-{name}", replies_prefix=f"replies-{name}."
    )
    plan = TopicPlan(jobs_partitions=PARTITIONS, reply_partitions=PARTITIONS)
    asyncio.run(ensure_topics(kafka.bootstrap, contract, [TENANT], plan))
    return Site(kafka, folder, *models, contract)


@dataclass
class Place:
    """A site with its topics, and how the Go program and the Python client come to it."""

    site: Site
    program: Path
    key: Path | None = None
    signer: Signer | None = None

    @asynccontextmanager
    async def asking(self, *arguments: object) -> AsyncIterator[Asking]:
        """Run the program; it does not outlive the block."""
        contract = self.site.contract
        options: dict[str, object] = {
            "brokers": self.site.kafka.bootstrap,
            "tenant": TENANT,
            "jobs-topic": contract.jobs_topic,
            "replies-prefix": contract.replies_prefix,
            "json": "true",
        }
        if self.key is not None:
            options["key"] = self.key
        process = await asyncio.create_subprocess_exec(
            self.program,
            *(f"-{name}={value}" for name, value in options.items()),
            *map(str, arguments),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            yield Asking(process)
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    async def ask(self, *arguments: object) -> Told:
        """Run the program to its end."""
        async with self.asking(*arguments) as asking:
            return await asking.rest()

    def client(self) -> Client:
        """Return the Python client, which signs with the same key."""
        contract = self.site.contract
        return Client(
            self.site.kafka.bootstrap,
            TENANT,
            jobs_topic=contract.jobs_topic,
            replies_prefix=contract.replies_prefix,
            signer=self.signer,
        )

    async def python(self, **options: Any) -> tuple[list[int], str]:
        """Return ids and text as the Python client has them."""
        options["sampling"]["ignore_eos"] = True
        async with self.client() as client:
            answer = await client.complete(PROMPT, timeout=200, **options)
        assert answer.resets == 0
        return [*answer.token_ids], answer.text


@dataclass
class Told:
    """What the program has told of a stream."""

    ids: list[int] = field(default_factory=list)
    text: str = ""
    end: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    token: str = ""
    _next: int | None = None

    def add(self, line: bytes) -> None:
        """Take a line: an event, and the token that stands behind it."""
        told = json.loads(line)
        self.token = told["token"]
        event = told.get("event") or {}
        if told["kind"] == "tokens":
            assert self._next in {None, event["Index"]}  # a resumed one begins anywhere
            self._next = event["Index"] + len(event["IDs"])
            self.ids += event["IDs"]
            self.text += event["Text"]
        elif told["kind"] == "done":
            self.end = event
            self.text += event["Text"]
        elif told["kind"] == "error":
            self.error = told["error"]
        else:
            raise AssertionError(f"{told['kind']}: nothing is withdrawn here")


class Asking:
    """A run of the program under way."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.told = Told()

    async def read(self, tokens: int) -> Self:
        """Read until it has told so many tokens."""
        assert self._process.stdout is not None
        while len(self.told.ids) < tokens:
            line = await self._process.stdout.readline()
            assert line, await self._complaint()
            self.told.add(line)
        return self

    async def rest(self) -> Told:
        """Read to the end and return all that was told."""
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            self.told.add(line)
        assert await self._process.wait() == 0, await self._complaint()
        return self.told

    def kill(self) -> None:
        """End it without a word."""
        self._process.kill()

    async def _complaint(self) -> str:
        assert self._process.stderr is not None
        return (await self._process.stderr.read()).decode()
