"""Aril's whole worker on the embedded broker; this process is its tenants.

    python aril_worker.py MODEL ADAPTERS float32|bfloat16|auto

Broker, worker and clients share the cores that other peers have for themselves.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack

import torch
import wire

from aril import Client
from aril.broker import EmbeddedBroker
from aril.demo.worker_process import WorkerProcess
from aril.schemas import Sampling, TokensEvent
from aril.worker.topics.admin import Contract, ensure_topics

ADDRESS = "127.0.0.1:31271"
VISITOR = "visitor"  # sends jobs for the backbone


TENANTS = (VISITOR, "acme", "blackbeard", "ledgerly")


async def main(model: str, adapters: str, dtype: str) -> None:
    """Start everything, then serve."""
    async with AsyncExitStack() as held:
        broker = await held.enter_async_context(EmbeddedBroker())
        await ensure_topics(broker.bootstrap, Contract(), TENANTS)
        settings = {
            "ARIL_BOOTSTRAP": broker.bootstrap,
            "ARIL_MODEL": model,
            "ARIL_ADAPTERS": adapters,
            "ARIL_HTTP": ADDRESS,
            "ARIL_THREADS": "2",
            "ARIL_DTYPE": dtype,
            "ARIL_MAX_ROWS": "48",
        }
        worker = await held.enter_async_context(WorkerProcess(settings, address=ADDRESS))
        await worker.wait_until_ready(lambda _: None)
        clients = {
            tenant: await held.enter_async_context(Client(broker.bootstrap, tenant))
            for tenant in TENANTS
        }
        loop = asyncio.get_running_loop()

        def answer(requests: list[wire.Request]) -> wire.Answers:
            return asyncio.run_coroutine_threadsafe(_answer(clients, requests), loop).result()

        version = f"torch {torch.__version__}, {dtype}, with broker and clients"
        await asyncio.to_thread(wire.serve, version, answer)


async def _answer(clients: dict[str, Client], requests: list[wire.Request]) -> wire.Answers:
    answers = wire.Answers(requests)
    await asyncio.gather(
        *(_stream(clients, answers, row, asked) for row, asked in enumerate(requests))
    )
    return answers


async def _stream(
    clients: dict[str, Client], answers: wire.Answers, row: int, asked: wire.Request
) -> None:
    tenant, _, adapter = (asked["adapter"] or VISITOR).partition("/")
    stream = clients[tenant].stream(
        token_ids=asked["prompt"],
        adapter=adapter or None,
        sampling=Sampling(max_tokens=asked["new"], temperature=0.0, ignore_eos=True),
        timeout=600,
    )
    async for event in stream:
        if isinstance(event, TokensEvent):
            answers.add(row, list(event.ids))


asyncio.run(main(*sys.argv[1:]))
