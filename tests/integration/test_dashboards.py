"""Every query of the dashboards and every rule, on a real Prometheus that scrapes real workers."""

from __future__ import annotations

import asyncio
import math
import re
import signal
import time
from typing import TYPE_CHECKING, Any, Final

import pytest
from aiokafka import AIOKafkaProducer

from aril import JobFailed
from tests.support.dashboards import dashboard, descriptions, panels
from tests.support.prometheus import Prometheus, need_tools

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integration.conftest import Site

pytestmark = [pytest.mark.slow, pytest.mark.kafka, pytest.mark.timeout(280)]

JOBS: Final = 24
STEP_SECONDS: Final = "5"
SPARED: Final = {"Guesses that came true"}  # whether a tiny model repeats itself is its own affair
PATIENCE: Final = 60.0  # seconds
VARIABLES: Final = {
    "$fleet": ".*",
    "$worker": ".*",
    "$tenant": ".*",
    "$__rate_interval": "1m",
    "$__range": "10m",
}


@pytest.fixture(autouse=True)
def _tools() -> None:
    need_tools()


def filled_in(expression: str) -> str:
    """Return an expression as Grafana sends it."""
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    return expression


def targets() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Return each query with its panel's title and the words for when it is empty."""
    for told in descriptions().values():
        for panel in panels(told):
            for target in panel.targets():
                yield panel.title, panel.empty, target


async def ask(site: Site, tenant: str, adapter: str | None, job: int) -> None:
    """Have one job answered, whatever happens to the workers."""
    sampling = {"max_tokens": 200, "ignore_eos": True}
    async with site.client(tenant) as client:
        await client.complete(
            f"{job} hello hello hello", adapter=adapter, sampling=sampling, timeout=200
        )


async def nonsense(site: Site) -> None:
    """Send a record that is no job."""
    producer = AIOKafkaProducer(bootstrap_servers=site.kafka.bootstrap)
    await producer.start()
    try:
        await producer.send_and_wait(site.contract.jobs_topic, b"nonsense")
    finally:
        await producer.stop()


async def until(prometheus: Prometheus, expression: str, least: float) -> None:
    """Wait until Prometheus has seen as much."""
    deadline = time.monotonic() + PATIENCE
    while (seen := await prometheus.value(expression) or 0) < least:
        assert time.monotonic() < deadline, f"{expression} is {seen} and not {least}"
        await asyncio.sleep(0.2)


async def test_every_query_has_data_or_says_why_not(site: Site, tmp_path: Path) -> None:
    """Two workers serve, one is killed; then the panels of both dashboards are asked for."""
    first, second = site.worker("w1"), site.worker("w2")
    async with first, second:
        addresses = [worker.url.removeprefix("http://") for worker in (first, second)]
        async with Prometheus(tmp_path, addresses) as prometheus:
            await until(prometheus, "sum(aril_ready)", 2)
            asked = [
                asyncio.create_task(ask(site, *pair, job))
                for job, pair in enumerate(
                    [("acme", "terse"), ("blackbeard", "pirate"), ("visitor", None)] * (JOBS // 3)
                )
            ]
            while not await second.metric("aril_running_jobs"):  # noqa: ASYNC110 - a process's state
                await asyncio.sleep(0.01)
            second.signal(signal.SIGKILL)
            async with site.client("acme") as client:
                with pytest.raises(JobFailed):
                    await client.complete("hello", adapter="nobody", timeout=200)
            await nonsense(site)
            await asyncio.gather(*asked)
            # Of the worker that lives: the other's series end with it.
            await until(prometheus, 'sum(aril_jobs_total{end="unknown_adapter"})', 1)
            await until(prometheus, "sum(rate(aril_dead_letters_total[1m]) + 1)", 1)
            await until(prometheus, "max(aril_rebalances_total)", 2)
            empty = await looked_at(prometheus)
            await rules_are_well(prometheus)
    print("without data here:", sorted(empty))
    assert empty <= SPARED


async def looked_at(prometheus: Prometheus) -> set[str]:
    """Ask every query for the last minutes; return the titles of panels without data."""
    without, end = set(), time.time()
    for title, empty, target in targets():
        found = await prometheus.ask(
            "query_range",
            query=filled_in(target["expr"]),
            start=str(end - 600),
            end=str(end),
            step=STEP_SECONDS,
        )
        series = [
            each["metric"]
            for each in found["result"]
            if any(not math.isnan(float(value)) for _, value in each["values"])
        ]
        if not series:
            assert empty, f"{title}: {target['expr']} has no data, and no words for that"
            without.add(title)
        named = re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])
        assert all(set(named) <= set(metric) for metric in series), title
    for told in descriptions().values():
        for variable in dashboard(told)["templating"]["list"][1:]:
            asked = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["definition"])
            assert asked
            selector = {"match[]": filled_in(asked[1])}
            assert await prometheus.ask(f"label/{asked[2]}/values", **selector), variable["name"]
    return without


async def rules_are_well(prometheus: Prometheus) -> None:
    """Each rule was evaluated without error, and nothing alarms in a fleet that works."""
    groups = (await prometheus.ask("rules"))["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert {rule["health"] for rule in rules} == {"ok"}
    firing = {rule["name"] for rule in rules if rule.get("state") == "firing"}
    assert firing == set()
