"""Parts of the harness that a run leans on: requests are told apart, a seed draws the same jobs."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import pytest

from aril.schemas import DecodeError, Job, decode_request, encode_request
from tests.support.fault_content import digest_of
from tests.support.fault_forms import BY_FORM
from tests.support.fault_jobs import HEAVY, USUAL, Pressure, break_job, draw
from tests.support.fault_packers import CODECS
from tests.support.fault_plan import BY_NAME, KINDS, POISON, Faults
from tests.support.fault_proxy import (
    API_KEY,
    LOOPBACK,
    OFFSET_COMMIT,
    FaultProxy,
    Frames,
    address_of,
)
from tests.support.fault_scene import Scene
from tests.support.fault_store import StoreTrouble
from tests.support.fault_worker import POINTS

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("piece", [1, 3, 7, 1_000])
def test_requests_are_found_whatever_pieces_they_come_in(piece: int) -> None:
    """Nothing is lost or added, and every request begins where it does."""
    chance = random.Random(piece)
    sent = []
    for size in (8, 0, 300, 17):
        body = OFFSET_COMMIT + chance.randbytes(size)
        sent.append(len(body).to_bytes(4) + body)
    wire, requests = b"".join(sent), Frames()
    found = []
    for start in range(0, len(wire), piece):
        found += requests.feed(wire[start : start + piece])
    assert found == sent
    assert all(each[API_KEY] == OFFSET_COMMIT for each in found)


@pytest.mark.parametrize("pressure", [USUAL, HEAVY])
def test_a_seed_draws_the_same_jobs_of_all_kinds(pressure: Pressure) -> None:
    """Whole, cancelled, late and refused ones, by adapters and without."""
    first, second = (
        [draw(chance, "acme", pressure) for _ in range(2_000)]
        for chance in (random.Random(7), random.Random(7))
    )
    assert first == second
    ends = {each for wish in first for each in wish.ends}
    assert ends == {
        "done",
        "cancelled",
        "deadline_exceeded",
        "unknown_adapter",
        "limit_exceeded",
        "invalid_job",
    }
    assert any(wish.whole and wish.adapter for wish in first)
    assert any(wish.whole and not wish.adapter for wish in first)
    free = [wish for wish in first if wish.whole and wish.form is None]
    assert {wish.tokens for wish in free} == set(pressure.lengths)
    assert {wish.form for wish in first if wish.whole} == {None, *BY_FORM}
    assert {wish.codec for wish in first} == {None, *CODECS}
    assert len({digest_of(tenant, "tone") for tenant in ("acme", "visitor")}) == 2


def test_a_broken_job_says_whose_it_is_and_is_no_job() -> None:
    """So that a worker can answer it before it is put aside."""
    with pytest.raises(DecodeError) as caught:
        decode_request(break_job(encode_request(Job(id="job-1", tenant="acme", prompt="?"))))
    told = caught.value
    assert (told.kind, told.tenant, told.job) == ("job", "acme", "job-1")


def test_a_whole_round_has_every_fault_and_a_short_one_one_of_each_kind() -> None:
    """And all points; the same seed gives the same order."""
    scene = Scene(None, None, random.Random(1))  # type: ignore[arg-type]  # a plan needs none
    whole = Faults(scene, 3).plan(whole=True)
    assert whole == Faults(scene, 3).plan(whole=True)
    names = [name for joined in whole for name in joined.split("+")]
    faults = [each.__name__ for kind in (*KINDS, POISON) for each in kind]
    assert sorted(names) == sorted([*POINTS, *faults])
    short = [name for joined in Faults(scene, 3).plan(whole=False) for name in joined.split("+")]
    assert len(short) == len(POINTS) + len(POISON) + len(KINDS)
    assert set(short) <= {*POINTS, *BY_NAME}


async def test_a_stores_trouble_is_one_adapters_and_ends(tmp_path: Path) -> None:
    """A worker that asks by a file of its own waits or fails for it alone, and then no more."""
    ours, theirs = (StoreTrouble(tmp_path / "store") for _ in range(2))
    await theirs.reach("acme", "tone")
    ours.begin("acme", "tone", "ill")
    with pytest.raises(OSError, match="ill"):
        await theirs.reach("acme", "tone")
    ours.begin("acme", "tone", "slow")
    for other in (("acme", "support"), ("visitor", "tone")):
        await theirs.reach(*other)
    waiting = asyncio.create_task(theirs.reach("acme", "tone"))
    await asyncio.sleep(0)
    assert not waiting.done()
    ours.end()
    await waiting


async def test_whoever_comes_by_the_proxy_is_led_back_to_it() -> None:
    """An answer gives the proxy's address for the broker's, whatever pieces it comes in."""
    parted = asyncio.Event()

    async def broker(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        body = b"\0\0\0\1...." + address_of(port) + b"...."
        answer = len(body).to_bytes(4) + body
        writer.write(answer[:20])
        await parted.wait()
        writer.write(answer[20:])
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(broker, LOOPBACK, 0)
    port = server.sockets[0].getsockname()[1]
    async with server, FaultProxy(port) as proxy:
        reader, writer = await asyncio.open_connection(LOOPBACK, proxy.port)
        await asyncio.sleep(0)
        parted.set()
        answer = await reader.readexactly(4 + 8 + len(address_of(port)) + 4)
        assert address_of(proxy.port) in answer
        assert address_of(port) not in answer
        writer.close()
