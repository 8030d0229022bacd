"""The broker that tests run against: any cluster, our own Apache Kafka, or the embedded one."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from aril.broker import BrokerProcess, EmbeddedBroker, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

Kind = Literal["apache", "external", "embedded"]

ROOT: Final = Path(__file__).parents[2]
MINIMUM_JAVA: Final = 17
JAVA_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Kafka:
    """A running cluster; `kind` tells what it can do (`embedded` drops commit metadata)."""

    bootstrap: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Choice:
    """Which broker this run uses, and why, in words for the head of pytest's report."""

    kind: Kind
    why: str


class ApacheKafka(BrokerProcess):
    """Apache Kafka as `make kafka` runs it, with a data folder of its own that ends with it."""

    def __init__(self, data: Path, *, start_seconds: float = JAVA_SECONDS) -> None:
        super().__init__(log=data / "broker.log", start_seconds=start_seconds)
        self._data = data

    def _command(self, port: int) -> Sequence[str]:  # noqa: ARG002  passed by environment
        return ["/bin/bash", str(ROOT / "deploy/kafka/run.sh")]

    def _environment(self, port: int) -> Mapping[str, str]:
        return {
            **os.environ,
            "KAFKA_PORT": str(port),
            "KAFKA_CONTROLLER_PORT": str(free_port()),
            "KAFKA_DATA": str(self._data),
            "KAFKA_CLUSTER_ID": self.cluster_id,
        }


@contextlib.contextmanager
def running_kafka() -> Iterator[Kafka]:
    """Run the chosen broker: the body of a session-scoped fixture."""
    kind = choice().kind
    if kind == "external":
        yield Kafka(os.environ["KAFKA_BOOTSTRAP"], kind)
    elif kind == "apache":
        with (
            tempfile.TemporaryDirectory(prefix="aril-kafka-", ignore_cleanup_errors=True) as data,
            ApacheKafka(Path(data)) as broker,
        ):
            yield Kafka(broker.bootstrap, kind)
    else:
        with EmbeddedBroker() as broker:
            yield Kafka(broker.bootstrap, kind)


def report_header() -> str:
    """Return the line that tells the reader of a test report which broker was used."""
    chosen = choice()
    return f"kafka: {chosen.kind} ({chosen.why})"


@functools.cache
def choice() -> Choice:
    """Choose the broker: `KAFKA_BOOTSTRAP`, else Apache Kafka if it can run here, else ours."""
    if bootstrap := os.environ.get("KAFKA_BOOTSTRAP"):
        return Choice("external", f"KAFKA_BOOTSTRAP={bootstrap}")
    java = _java_version()
    if java is None or java < MINIMUM_JAVA:
        return Choice("embedded", f"Apache Kafka needs Java {MINIMUM_JAVA}, here: {java or 'none'}")
    pom, fetched = ROOT / "deploy/kafka/pom.xml", ROOT / "build/kafka/pom.xml"
    if not fetched.exists() or fetched.read_bytes() != pom.read_bytes():
        return Choice("embedded", "Apache Kafka's jars are missing: make jars")
    version = re.search(r"<kafka\.version>(.*?)<", pom.read_text())
    return Choice("apache", f"{version[1] if version else 'unknown version'}, Java {java}")


def _java_version() -> int | None:
    if shutil.which("java") is None:
        return None
    told = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False)
    found = re.search(r'version "(?:1\.)?(\d+)', told.stderr)
    return int(found[1]) if found else None
