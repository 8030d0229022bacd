"""The broker under the tests: which one is chosen, what the report says, and how it is set up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from tests.support import brokers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def _chosen_anew(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("KAFKA_BOOTSTRAP", raising=False)
    brokers.choice.cache_clear()
    yield
    brokers.choice.cache_clear()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in for the checkout, with a pom and no jars fetched."""
    (tmp_path / "deploy/kafka").mkdir(parents=True)
    (tmp_path / "deploy/kafka/pom.xml").write_text("<kafka.version>4.1.0</kafka.version>")
    (tmp_path / "build/kafka").mkdir(parents=True)
    monkeypatch.setattr(brokers, "ROOT", tmp_path)
    return tmp_path


@pytest.fixture
def java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a `java` alone on the PATH that says it is version 17."""
    binary = tmp_path / "bin" / "java"
    binary.parent.mkdir()
    binary.write_text("#!/bin/sh\necho 'openjdk version \"17.0.15\" 2025-04-15' >&2\n")
    binary.chmod(0o755)
    monkeypatch.setenv("PATH", str(binary.parent))
    return binary


def test_any_cluster_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """KAFKA_BOOTSTRAP goes before everything else, and nothing is started."""
    monkeypatch.setenv("KAFKA_BOOTSTRAP", "broker.example:9092")
    with brokers.running_kafka() as kafka:
        assert kafka == brokers.Kafka("broker.example:9092", "external")
    assert brokers.report_header() == "kafka: external (KAFKA_BOOTSTRAP=broker.example:9092)"


def test_apache_kafka_where_it_can_run(repository: Path, java: Path) -> None:
    """With Java 17 and the jars of the present pom, tests run on Apache Kafka."""
    assert java.exists()
    (repository / "build/kafka/pom.xml").write_bytes(
        (repository / "deploy/kafka/pom.xml").read_bytes()
    )
    assert brokers.report_header() == "kafka: apache (4.1.0, Java 17)"


def test_stale_jars_do_not_count(repository: Path, java: Path) -> None:
    """Jars of another version than the pom's are not run; the report names the cure."""
    assert java.exists()
    (repository / "build/kafka/pom.xml").write_text("<kafka.version>3.9.0</kafka.version>")
    assert brokers.report_header() == "kafka: embedded (Apache Kafka's jars are missing: make jars)"


@pytest.mark.parametrize(("version", "told"), [('java version "1.8.0_402"', "8"), ("", "none")])
@pytest.mark.usefixtures("repository")
def test_old_java_does_not_count(java: Path, version: str, told: str) -> None:
    """Without Java 17 tests run on the embedded broker, and the report says so."""
    java.write_text(f"#!/bin/sh\necho '{version}' >&2\n")
    expected = f"kafka: embedded (Apache Kafka needs Java 17, here: {told})"
    assert brokers.report_header() == expected


@pytest.mark.kafka
async def test_our_apache_kafka_is_strict(tmp_path: Path) -> None:
    """A topic exists only once it is created, and a group's first rebalance does not wait."""
    if brokers.choice().kind != "apache":
        pytest.skip("no Apache Kafka can run here")
    async with brokers.ApacheKafka(tmp_path) as broker:
        admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap)
        await admin.start()
        try:
            (told,) = await admin.describe_configs([ConfigResource(ConfigResourceType.BROKER, "1")])
            (resource,) = told.resources
            settings = {entry[0]: entry[1] for entry in resource[4]}
        finally:
            await admin.close()
    assert settings["auto.create.topics.enable"] == "false"
    assert settings["group.initial.rebalance.delay.ms"] == "0"
    assert settings["offsets.topic.replication.factor"] == "1"
