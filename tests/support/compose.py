"""The compose stack under test: started, scaled and taken down by the engine's own command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, Final, Self

from aril.broker import free_port
from tests.support.brokers import ROOT

if TYPE_CHECKING:
    from types import TracebackType

PROJECT: Final = "aril-test"
READY_SECONDS: Final = 600.0
POLL_SECONDS: Final = 1.0
LOG_LINES: Final = 60


def engine_answers() -> bool:
    """Tell whether a Docker engine with compose v2 can be used."""
    try:
        for command in (["docker", "info"], ["docker", "compose", "version"]):
            subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


class Stack:
    """compose.yaml as a project of its own on free ports. A context manager: up, then down."""

    def __init__(self, profile: str = "") -> None:
        self._port, self._gateway_port = free_port(), free_port()
        self._profile = profile

    @property
    def bootstrap(self) -> str:
        """Return the published port of its Kafka, as programs of this machine reach it."""
        return f"localhost:{self._port}"

    @property
    def gateway(self) -> str:
        """Return where the gateway of the profile `gateway` is reached."""
        return f"http://127.0.0.1:{self._gateway_port}"

    def __enter__(self) -> Self:
        self._down()
        try:
            self._compose("up", "--build", "--detach", "--quiet-pull")
            self.wait_for_workers(1)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        sys.stdout.write(self._compose("logs", "--no-color", "--tail", str(LOG_LINES), "worker"))
        self._down()

    def scale(self, workers: int) -> None:
        """Start or stop worker containers; stopped ones have drained when this returns."""
        self._compose("up", "--detach", "--no-deps", "--scale", f"worker={workers}", "worker")

    def workers(self) -> dict[str, str]:
        """Return the health of each running worker container, by its host name."""
        listed = self._compose("ps", "--format", "json", "worker").splitlines()
        return {entry["ID"][:12]: str(entry["Health"]) for entry in map(json.loads, listed)}

    def wait_for_workers(self, count: int) -> None:
        """Wait until exactly `count` workers run and all of them take jobs."""
        deadline = time.monotonic() + READY_SECONDS
        while (health := self.workers()) and (
            len(health) != count or set(health.values()) != {"healthy"}
        ):
            assert time.monotonic() < deadline, f"workers after {READY_SECONDS:.0f} s: {health}"
            time.sleep(POLL_SECONDS)
        assert health, "no worker runs"

    def kill(self, worker: str) -> None:
        """End a worker's container with SIGKILL; the engine does not start it again."""
        _run("docker", "kill", "--signal", "KILL", worker)

    def state_of(self, service: str) -> dict[str, Any]:
        """Return how the one container of `service` is, as `docker inspect` has it."""
        container = self._compose("ps", "--all", "--quiet", service).strip()
        inspected: list[dict[str, Any]] = json.loads(_run("docker", "inspect", container))
        return inspected[0]

    def left_behind(self) -> str:
        """Return containers, volumes and networks of the project that exist."""
        label = f"label=com.docker.compose.project={PROJECT}"
        return "".join(
            _run("docker", *what, "ls", "--quiet", "--filter", label)
            for what in (["container"], ["volume"], ["network"])
        )

    def _down(self) -> None:
        self._compose("--profile", "*", "down", "--volumes", "--remove-orphans")

    def _compose(self, *arguments: str) -> str:
        return _run(
            *["docker", "compose", "--project-name", PROJECT, "--file", "compose.yaml"],
            *arguments,
            COMPOSE_PROFILES=self._profile,
            KAFKA_PORT=str(self._port),
            GATEWAY_PORT=str(self._gateway_port),
            # Three workers must fit on a small machine.
            WORKER_CPUS="1",
            KV_TOKENS="4096",
        )


def _run(*command: str, **environment: str) -> str:
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr[-4000:]}"
    return done.stdout
