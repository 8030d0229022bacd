"""A Kafka with room for eleven thousand partitions that tells how often it is asked what."""

from __future__ import annotations

import asyncio
import re
import resource
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aril.broker import LOOPBACK, free_port
from tests.support.brokers import ROOT, ApacheKafka

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# The second compiler, too, which the tests' broker goes without: it is busy for minutes here.
HEAP: Final = "-Xms1g -Xmx1g -XX:TieredStopAtLevel=4"
MAPS_FILE: Final = Path("/proc/sys/vm/max_map_count")
SPARE: Final = 1_000  # descriptors and maps beside those of partitions
MAPS_A_PARTITION: Final = 2  # its index by offset, and that by time
COUNTED: Final = "kafka.network:type=RequestMetrics,name=RequestsPerSec,request=*,version=*"


class FleetKafka(ApacheKafka):
    """One broker with a gigabyte of heap and as many descriptors as a process may have."""

    def __init__(self, data: Path, partitions: int) -> None:
        """Prepare. Raises SystemExit where this machine does not hold so many partitions."""
        super().__init__(data)
        self._jmx = free_port()
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        if most != resource.RLIM_INFINITY and most < partitions + SPARE:
            raise SystemExit(f"{partitions} partitions need as many descriptors: ulimit -n {most}")
        maps = int(MAPS_FILE.read_text())
        if maps < MAPS_A_PARTITION * partitions + SPARE:
            raise SystemExit(f"{partitions} partitions need twice as many maps: {MAPS_FILE} {maps}")

    def _command(self, port: int) -> Sequence[str]:  # noqa: ARG002 - passed by environment
        run = 'ulimit -n "$(ulimit -Hn)" && exec /bin/bash "$0"'
        return ["/bin/bash", "-c", run, str(ROOT / "deploy/kafka/run.sh")]

    def _environment(self, port: int) -> Mapping[str, str]:
        managed = {
            "com.sun.management.jmxremote.port": self._jmx,
            "com.sun.management.jmxremote.rmi.port": self._jmx,
            "com.sun.management.jmxremote.host": LOOPBACK,
            "com.sun.management.jmxremote.authenticate": "false",
            "com.sun.management.jmxremote.ssl": "false",
            "java.rmi.server.hostname": LOOPBACK,
        }
        told = [f"-D{name}={value}" for name, value in managed.items()]
        return {**super()._environment(port), "KAFKA_HEAP_OPTS": " ".join([HEAP, *told])}

    async def requests(self) -> Counter[str]:
        """Return how many requests of each kind there were so far."""
        tool = await asyncio.create_subprocess_exec(
            *("java", "-XX:TieredStopAtLevel=1", "-cp", str(ROOT / "build/kafka/libs/*")),
            "org.apache.kafka.tools.JmxTool",
            *("--jmx-url", f"service:jmx:rmi:///jndi/rmi://{LOOPBACK}:{self._jmx}/jmxrmi"),
            *("--object-name", COUNTED, "--attributes", "Count"),
            *("--one-time", "--report-format", "properties"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        told, _ = await tool.communicate()
        return counted_in(told.decode())


def counted_in(told: str) -> Counter[str]:
    """Read the tool's answer, and add up what is asked in several versions."""
    found: Counter[str] = Counter()
    for kind, count in re.findall(r"request=(\w+),version=\d+:Count=(\d+)", told):
        found[kind] += int(count)
    return found
