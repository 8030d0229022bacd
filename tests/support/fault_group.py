"""Faults of what brokers keep: commits lost, late, stale; a topic that grows, a log cut short."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import NewPartitions, RecordsToDelete
from aiokafka.protocol.admin import DeleteGroupsRequest
from aiokafka.structs import OffsetAndMetadata

from aril.schemas import reply_partition, reply_topic
from aril.worker.queue.membership.requests import GroupDescribeRequest
from tests.faults.history import Trim
from tests.support.fault_deaths import STEADY, replace_all
from tests.support.fault_fleet import PARTITIONS, SESSION_SECONDS
from tests.support.fault_network import behind_a_proxy, catch_commit
from tests.support.fault_watch import ends_of, inputs, replies_of
from tests.support.two_brokers import admin_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiokafka.admin import AIOKafkaAdminClient

    from tests.faults.history import Name
    from tests.support.fault_fleet import FaultSite
    from tests.support.fault_scene import Scene

LANDING_SECONDS = 5.0
TRIES = 10  # to find a long answer under way, and all workers dead before its end
JOBS_KEPT = 100
EMPTY_SECONDS = 60.0
OVER_SECONDS = 240.0
CATCH_UP_SECONDS = 1.0  # readers have what was appended before

Commits = dict[TopicPartition, OffsetAndMetadata]


async def lost_metadata(scene: Scene) -> None:
    """Let nobody live, and replace what the group's offsets say is done beyond them."""
    await scene.fleet.kill_all()
    await _emptied(scene.site)
    text = scene.random.choice(["", "not base64", "AQAAAAAA", "x" * 4_000])
    found = await _committed(scene.site)
    await _commit_as_nobody(
        scene.site,
        {place: OffsetAndMetadata(each.offset, text) for place, each in found.items()},
    )


async def late_commit(scene: Scene) -> None:
    """Let a commit land when all are dead: a zombie's own, then one that an empty group takes.

    The second sets positions and done lists back to where they were; both have to cost no job.
    """
    scene.zombies = True
    earlier = await _committed(scene.site)
    async with behind_a_proxy(scene) as (proxy, worker):
        await catch_commit(scene, proxy, "held")
        await asyncio.gather(scene.fleet.kill_all(), worker.kill())
        await _emptied(scene.site)
        proxy.release()
        try:
            async with asyncio.timeout(LANDING_SECONDS):
                await proxy.landed.wait()
        except TimeoutError:
            scene.missed.append("the commit that was held did not land")
    await _commit_as_nobody(scene.site, earlier)


async def group_deleted(scene: Scene) -> None:
    """Let nobody live, and delete the group: its offsets go, its generations begin again.

    What is left of the jobs topic is read anew, so retention passes most of what is finished.
    """
    await _over(scene, scene.trimmed_at)
    await scene.fleet.kill_all()
    await _retire_jobs(scene)
    scene.generations_restarted = True
    async with admin_of(scene.site.bootstrap) as admin:
        for _ in range(60):  # it has to run empty first
            node = await admin.find_coordinator(scene.site.group)
            told = await admin._send_request(DeleteGroupsRequest([scene.site.group]), node)
            if not told.results[0][1]:
                break
            await asyncio.sleep(0.5)
        else:
            scene.missed.append(f"the group was not deleted: {told}")
    scene.restarted_at = await _ends(scene.site)


async def partition_added(scene: Scene) -> None:
    """Let the jobs topic grow while it is served; new clients use the new partition at once.

    Workers learn of it when they join, or within aiokafka's five minutes: so they are replaced.
    """
    topic = scene.site.contract.jobs_topic
    async with admin_of(scene.site.bootstrap) as admin:
        (told,) = await admin.describe_topics([topic])
        wanted = len(told["partitions"]) + 1
        await admin.create_partitions({topic: NewPartitions(wanted)})
        for _ in range(50):
            (told,) = await admin.describe_topics([topic])
            led = [each for each in told["partitions"] if each["leader"] >= 0]
            if len(led) == wanted:
                break
            await asyncio.sleep(0.1)
        else:
            scene.missed.append(f"{topic} did not grow to {wanted} partitions")
    await scene.load.renew()
    await asyncio.sleep(CATCH_UP_SECONDS)
    await replace_all(scene, *(scene.fleet.new() for _ in range(STEADY)))


async def prefix_deleted(scene: Scene) -> None:
    """Let retention pass what is visible of a long answer under way, while nobody lives."""
    await _over(scene, scene.restarted_at)
    name = await _orphan(scene)
    if name is None:
        scene.missed.append("no long answer was under way")
        return
    topic = reply_topic(scene.site.contract.replies_prefix, name.tenant)
    place = TopicPartition(topic, reply_partition(name.job, PARTITIONS))
    deleted = await replies_of(scene.site, name.tenant, place.partition)
    end = deleted[-1].offset + 1
    async with admin_of(scene.site.bootstrap) as admin:
        await admin.delete_records({place: RecordsToDelete(end)})
    scene.deleted += deleted
    scene.trims.append(Trim(name.tenant, place.partition, end))
    scene.withdrawn.append(name)
    scene.trimmed_at = await _ends(scene.site)


async def _over(scene: Scene, ends: Mapping[int, int]) -> None:
    """Wait until all jobs below these offsets are settled.

    Else retention takes claims of a job whose next owner counts generations anew: no owner can
    know what it has to be above, which is not promised (docs/exactly-once.md).
    """
    until = time.monotonic() + OVER_SECONDS
    while time.monotonic() < until:
        found = await _committed(scene.site)
        positions = {place.partition: each.offset for place, each in found.items()}
        if all(positions.get(place, 0) >= end for place, end in ends.items()):
            return
        await asyncio.sleep(0.5)
    scene.missed.append("jobs of before an earlier fault were not settled")


async def _ends(site: FaultSite) -> dict[int, int]:
    return await ends_of(site.bootstrap, site.contract.jobs_topic)


async def _orphan(scene: Scene) -> Name | None:
    """Kill all workers while a long answer is under way; return whose, its reader up to date."""
    for _ in range(TRIES):
        name = scene.load.long_answer()
        if name is None:
            await asyncio.sleep(0.5)
            continue
        await scene.fleet.kill_all()
        await asyncio.sleep(CATCH_UP_SECONDS)
        if scene.load.reads(name):
            return name
        await scene.fleet.grow(STEADY)
    return None


async def _retire_jobs(scene: Scene) -> None:
    """Let retention pass the finished jobs, but for the last ones of each partition."""
    committed = await _committed(scene.site)
    ends = {place.partition: each.offset - JOBS_KEPT for place, each in committed.items()}
    found = await inputs(scene.site)
    scene.retired += [each for each in found if each.offset < ends.get(each.partition, 0)]
    topic = scene.site.contract.jobs_topic
    async with admin_of(scene.site.bootstrap) as admin:
        await admin.delete_records(
            {
                TopicPartition(topic, partition): RecordsToDelete(end)
                for partition, end in ends.items()
                if end > 0
            }
        )


async def _emptied(site: FaultSite) -> None:
    """Wait until the group has no members: while it has some nobody else may commit.

    One that died while it joined is only missed after the time that a rebalance may take.
    """
    await asyncio.sleep(SESSION_SECONDS + 1)
    async with admin_of(site.bootstrap) as admin, asyncio.timeout(EMPTY_SECONDS):
        while await _state(admin, site.group) not in {"Empty", "Dead"}:  # noqa: ASYNC110 - the broker's state
            await asyncio.sleep(0.5)


async def _state(admin: AIOKafkaAdminClient, group: str) -> str:
    node = await admin.find_coordinator(group)
    told = await admin._send_request(GroupDescribeRequest(group), node)
    code, _, _, state, *_ = told.groups[0]
    if code:  # it is no group of KIP-848
        (told,) = await admin.describe_consumer_groups([group])
        state = told.groups[0][2]
    return str(state)


async def _committed(site: FaultSite) -> Commits:
    async with admin_of(site.bootstrap) as admin:
        found: Commits = await admin.list_consumer_group_offsets(site.group)
    return found


async def _commit_as_nobody(site: FaultSite, commits: Mapping[TopicPartition, object]) -> None:
    """Commit without being a member, as any tool may once the group is empty."""
    if not commits:  # nobody has committed anything since the group began
        return
    consumer = AIOKafkaConsumer(
        bootstrap_servers=site.bootstrap, group_id=site.group, enable_auto_commit=False
    )
    await consumer.start()
    try:
        consumer.assign([*commits])
        await consumer.commit(commits)
    finally:
        await consumer.stop()
