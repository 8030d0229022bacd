"""Batches that no worker can unpack, and odd records among jobs: appended byte by byte."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, NamedTuple

from aiokafka.codec import gzip_encode, lz4_encode, snappy_encode

from aril.schemas import Job, Sampling, encode_request
from tests.faults.history import Asked, Input, Name
from tests.support.fault_fleet import PARTITIONS
from tests.support.fault_load import TENANTS
from tests.support.raw_records import ODD_NAME, append_batch, batch, record, sized, varint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.faults.history import Kind
    from tests.support.fault_scene import Scene

# A broker reads as many records as a batch says to have and looks no further; whoever unpacks the
# whole trips over what lies behind. By the codec's number in a batch's attributes.
PACK: Final = {1: gzip_encode, 2: snappy_encode, 3: lz4_encode}
BEHIND: Final = b"\0?\xff"  # is no further member, block, or frame of any codec
LOST_IN_A_BATCH: Final = 2
TOKENS: Final = 7


class Odd(NamedTuple):
    """A record of a batch: a job to be answered, or with no name what is to be put aside."""

    raw: bytes
    name: Name | None = None


async def packed_badly(scene: Scene) -> None:
    """Append a batch of each codec that cannot be unpacked, each to a partition of its own."""
    made = [record(at, b"key", b"value") for at in range(LOST_IN_A_BATCH)]
    places = scene.random.sample(range(PARTITIONS), len(PACK))
    for partition, (codec, pack) in zip(places, PACK.items(), strict=True):
        packed = pack(b"".join(map(sized, made))) + BEHIND
        raw = batch(made, attributes=codec, packed=packed)
        offset = await _append(scene, partition, raw)
        scene.poisoned.append(
            Input(partition, offset, None, _now_ms(), "unreadable", span=LOST_IN_A_BATCH)
        )


async def odd_records(scene: Scene) -> None:
    """Append a batch in which jobs have neighbours that are none, to some partitions."""
    for partition in scene.random.sample(range(PARTITIONS), 2):
        found = _odd_ones(scene)
        raw = batch([each.raw for each in found])
        offset = await _append(scene, partition, raw)
        now = _now_ms()
        for at, each in enumerate(found, offset):
            kind: Kind = "unreadable" if each.name is None else "job"
            scene.poisoned.append(Input(partition, at, each.name, now, kind))
            if each.name is not None:
                scene.neighbours.append(Asked(each.name, TOKENS))


async def _append(scene: Scene, partition: int, raw: bytes) -> int:
    site = scene.site
    return await append_batch(site.bootstrap, site.contract.jobs_topic, partition, raw)


def _odd_ones(scene: Scene) -> Sequence[Odd]:
    """Return jobs, one with a header whose name is no text, around records that are no jobs."""
    before, odd, behind = (_job(scene) for _ in range(3))
    return (
        Odd(_of(0, before), before),
        Odd(record(1, b"\xff", scene.random.randbytes(50))),
        Odd(_of(2, odd, [(ODD_NAME, b"\xff")]), odd),
        Odd(_less_than_nothing(3)),
        Odd(record(4, None, None, [(ODD_NAME, b"")])),
        Odd(_of(5, behind), behind),
    )


def _job(scene: Scene) -> Name:
    number = len(scene.neighbours) + scene.random.randrange(10**9)
    return Name(scene.random.choice(TENANTS), f"beside-{number}")


def _of(delta: int, name: Name, headers: Sequence[tuple[bytes, bytes]] = ()) -> bytes:
    job = Job(id=name.job, tenant=name.tenant, prompt="?", sampling=Sampling(max_tokens=TOKENS))
    return record(delta, name.job.encode(), encode_request(job), headers)


def _less_than_nothing(delta: int) -> bytes:
    """Return a record whose key and value have lengths below that of none at all."""
    return b"\0" + varint(0) + varint(delta) + varint(-5) + varint(-7) + varint(0)


def _now_ms() -> int:
    return int(time.time() * 1_000)
