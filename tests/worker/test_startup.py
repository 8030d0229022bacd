"""The way up: what cannot be cured by waiting ends it, whatever else is waited for."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

import pytest
import structlog.testing

from aril.broker import free_port
from aril.worker.app import Worker, run_worker
from aril.worker.loading import ModelError, RoomError
from aril.worker.observe.health import Health
from aril.worker.observe.metrics import Metrics
from aril.worker.settings import load_settings
from aril.worker.startup import Startup, WorkerFailedError
from aril.worker.topics.contract import Contract
from aril.worker.topics.tenant_topics import TenantTopics

if TYPE_CHECKING:
    from aril.worker.loading import Loaded
    from aril.worker.settings import WorkerSettings


async def test_a_wrong_model_is_told_while_no_broker_answers() -> None:
    """The wait for brokers has no end of its own: the model's error ends it."""
    settings = load_settings(flags={"bootstrap": f"127.0.0.1:{free_port()}"}).settings

    def load(_: WorkerSettings) -> Loaded:
        raise ModelError("model: the checkpoint lacks lm_head.weight")

    topics = TenantTopics(Contract.of(settings), Metrics())
    startup = Startup(settings, "worker", Health(), topics)
    with pytest.raises(WorkerFailedError, match=r"the checkpoint lacks lm_head\.weight"):
        await asyncio.wait_for(startup.run(load), 30)


@pytest.mark.parametrize(("error", "code"), [(RoomError, 2), (ModelError, 1)])
async def test_exit_codes(error: type[ModelError], code: int) -> None:
    """A setting that asks for more memory than there is ends the worker as any bad setting does."""
    address = f"127.0.0.1:{free_port()}"
    settings = load_settings(flags={"bootstrap": address, "http": "off"}).settings

    def load(_: WorkerSettings) -> Loaded:
        raise error("one line")

    assert await asyncio.wait_for(Worker(settings, load=load).run(), 30) == code


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (
            {"security_protocol": "SSL", "ssl_cafile": "/nowhere/ca.pem"},
            "ssl_cafile: /nowhere/ca.pem: No such file or directory",
        ),
        (
            {
                "security_protocol": "SASL_SSL",
                "sasl_mechanism": "OAUTHBEARER",
                "sasl_token_provider": "xyzzy",
            },
            "sasl_token_provider=xyzzy: there is none of that name",
        ),
    ],
)
def test_what_is_named_for_the_brokers_and_missing_is_a_bad_setting(
    flags: dict[str, str], line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 2 and one line, before anything is loaded or connected to."""

    def load(_: WorkerSettings) -> Loaded:
        raise AssertionError("loaded")

    monkeypatch.setattr("aril.worker.app.configure_logs", lambda _: None)
    with structlog.testing.capture_logs() as told:
        assert run_worker(load_settings(flags=flags).settings, load=load) == 2
    (only,) = told
    assert (only["event"], only["log_level"]) == ("worker_failed", "error")
    assert only["error"].startswith(line)


def test_a_protocol_whose_package_is_missing_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an extra: nothing is loaded and no broker asked before that is told."""
    monkeypatch.setitem(sys.modules, "confluent_kafka.aio", None)
    monkeypatch.setattr("aril.worker.app.configure_logs", lambda _: None)

    def load(_: WorkerSettings) -> Loaded:
        raise AssertionError("not reached")

    settings = load_settings(flags={"group_protocol": "consumer"}).settings
    with structlog.testing.capture_logs() as logs:
        assert run_worker(settings, load=load) == 2
    assert logs[-1]["error"].endswith("pip install 'aril[consumer-protocol]'")
