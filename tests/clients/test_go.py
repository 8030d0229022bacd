"""The client in Go against live workers: it tells what the Python one tells, whatever happens."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import subprocess
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from aril import Signer
from aril.schemas import ClaimRecord, TokensEvent, VisibleStream, reply_partition
from tests.clients.live_go import PARTITIONS, PROMPT, TENANT, Place, new_site
from tests.support.signing import put_key
from tests.support.tiny import ALL_LINEARS, make_tiny_adapter, make_tiny_model

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.brokers import Kafka

pytestmark = [pytest.mark.slow, pytest.mark.kafka, pytest.mark.timeout(570)]

FOLDER = Path(__file__).parents[2] / "clients/go"
ADAPTER = "pirate"
LONG = 400  # tokens, of the 512 that the tiny model has places for


@pytest.fixture(scope="session")
def go() -> str:
    """Find the toolchain; skip where there is none that is new enough."""
    found = shutil.which("go")
    if found is None:
        assert "REQUIRE_GO" not in os.environ, "no Go toolchain"
        pytest.skip("no Go toolchain")
    wanted = re.search(r"^go (\d+)\.(\d+)", (FOLDER / "go.mod").read_text(), re.MULTILINE)
    told = subprocess.run([found, "env", "GOVERSION"], capture_output=True, text=True, check=True)
    here = re.match(r"go(\d+)\.(\d+)", told.stdout)
    assert wanted is not None
    if here is None or [*map(int, here.groups())] < [*map(int, wanted.groups())]:
        assert "REQUIRE_GO" not in os.environ, f"{told.stdout.strip()} is too old"
        pytest.skip(f"the client needs Go {wanted[1]}.{wanted[2]}, here: {told.stdout.strip()}")
    return found


@pytest.fixture(scope="session")
def ask_program(go: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the example that the README shows."""
    path = tmp_path_factory.mktemp("go") / "ask"
    subprocess.run(
        [go, "build", "-buildvcs=false", "-o", path, "./examples/ask"], cwd=FOLDER, check=True
    )
    return path


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Make a tiny model and an adapter."""
    folder = tmp_path_factory.mktemp("models")
    model = make_tiny_model(folder / "tiny")
    make_tiny_adapter(folder / "store" / TENANT / ADAPTER, model, targets=ALL_LINEARS)
    return model, folder / "store"


@pytest.fixture(scope="module")
def place(
    kafka: Kafka,
    ask_program: Path,
    models: tuple[Path, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Place]:
    """Keep a worker running that asks for signatures, and whose answers no neighbour changes."""
    folder = tmp_path_factory.mktemp("site")
    site = new_site("go", kafka, folder, models)
    signer, key = Signer.new(), folder / "acme.key"
    signer.save(key)
    put_key(folder / "keys", TENANT, signer)
    signed = {"tenant_from": "signature", "tenant_keys": folder / "keys"}
    with site.worker("one", invariant=1, **signed).standing():
        yield Place(site, ask_program, key, signer)


def test_its_own_tests(go: str, kafka: Kafka) -> None:
    """Vectors, bounds, and a real Kafka; formatted and vetted. Nothing is fetched."""
    # The embedded broker deletes no records.
    real = {} if kafka.kind == "embedded" else {"ARIL_TEST_KAFKA": kafka.bootstrap}
    formatted = subprocess.run(
        [Path(go).with_name("gofmt"), "-l", "."],
        cwd=FOLDER,
        capture_output=True,
        text=True,
        check=True,
    )
    assert not formatted.stdout
    for command in (["vet", "./..."], ["test", "-count=1", "-timeout=500s", "./..."]):
        subprocess.run([go, *command], cwd=FOLDER, env=os.environ | real, check=True)


@pytest.mark.parametrize("adapter", [None, ADAPTER])
async def test_it_tells_what_python_tells(place: Place, adapter: str | None) -> None:
    """The same ids and text for the same seed, of the backbone and of an adapter."""
    named = [] if adapter is None else [f"-adapter={adapter}"]
    told = await place.ask("-seed=7", "-max-tokens=40", "-ignore-eos", *named, PROMPT)
    sampling = {"seed": 7, "max_tokens": 40}
    assert (told.ids, told.text) == await place.python(adapter=adapter, sampling=sampling)
    assert told.end is not None
    assert (told.end["FinishReason"], told.end["Seed"], told.end["Adapter"]) == (
        "length",
        7,
        adapter or "",
    )
    assert (told.end["Digest"] == "") == (adapter is None)
    assert told.end["Usage"]["CompletionTokens"] == 40


async def test_errors_have_code_limit_and_value(place: Place) -> None:
    """What a job may not ask for is told as the worker tells it."""
    told = await place.ask("-max-tokens=200000", PROMPT)
    assert told.error is not None
    expected = {"Code": "limit_exceeded", "Limit": 131072, "Given": 200000, "Retryable": False}
    assert expected.items() <= told.error.items()
    told = await place.ask("-adapter=nobody", PROMPT)
    assert told.error is not None
    assert told.error["Code"] == "unknown_adapter"


async def test_cancel(place: Place) -> None:
    """A job that is cancelled in mid-stream ends in an error; what came of it stays."""
    told = await place.ask("-cancel-after=3", f"-max-tokens={LONG}", "-ignore-eos", PROMPT)
    assert told.error is not None
    assert told.error["Code"] == "cancelled"
    assert 3 <= len(told.ids) < LONG
    assert told.error["Index"] == len(told.ids)


async def test_a_job_sent_again_has_the_first_answer(place: Place) -> None:
    """By another process, and by the other client: the redirect leads each to the first one."""
    asked = ["-id=order-81", "-max-tokens=30", "-ignore-eos", PROMPT]  # the seed is drawn
    first = await place.ask(*asked)
    again = await place.ask(*asked)
    assert len(first.ids) == 30
    assert (again.ids, again.text, again.token) == (first.ids, first.text, first.token)
    assert (first.ids, first.text) == await place.python(
        job_id="order-81", sampling={"max_tokens": 30}
    )


async def test_a_killed_reader_goes_on_in_another_process(place: Place) -> None:
    """Kill -9 in mid-stream: from the last token that was printed on comes exactly the rest."""
    asked = ["-id=story-1", "-seed=3", f"-max-tokens={LONG}", "-ignore-eos", PROMPT]
    async with place.asking(*asked) as asking:
        told = (await asking.read(10)).told
        asking.kill()
    assert told.end is None
    rest = await place.ask(f"-resume={told.token}")
    whole = await place.python(sampling={"seed": 3, "max_tokens": LONG})
    assert (told.ids + rest.ids, told.text + rest.text) == whole
    ended = await place.ask(f"-resume={rest.token}")  # what is left of it is the end
    assert (ended.ids, ended.end) == ([], rest.end)


async def test_streams_pass_between_languages(place: Place) -> None:
    """Begun here and ended there, and the other way round."""
    sampling = {"seed": 5, "max_tokens": LONG, "ignore_eos": True}
    whole = await place.python(sampling=sampling)
    left = await place.ask(
        "-leave-after=8", "-seed=5", f"-max-tokens={LONG}", "-ignore-eos", PROMPT
    )
    assert 8 <= len(left.ids) < LONG
    ids, text = left.ids, left.text
    async with place.client() as client:
        async for event in client.resume(left.token, timeout=200):
            ids += event.ids if isinstance(event, TokensEvent) else ()
            text += getattr(event, "text", "")
    assert (ids, text) == whole
    async with place.client() as client:
        stream = await client.stream(PROMPT, sampling=sampling).start()
        events = aiter(stream)
        begun = [await anext(events) for _ in range(3)]
        token = stream.detach()
    ids = [each for event in begun if isinstance(event, TokensEvent) for each in event.ids]
    text = "".join(getattr(event, "text", "") for event in begun)
    rest = await place.ask(f"-resume={token}")
    assert (ids + rest.ids, text + rest.text) == whole


async def test_a_slow_reader_of_a_small_inbox_misses_nothing(place: Place) -> None:
    """The log is the buffer: two events ahead at most, and all 400 tokens come."""
    asked = ["-buffer=2", "-seed=3", f"-max-tokens={LONG}", "-ignore-eos", PROMPT]
    told = await place.ask(*asked)
    assert (told.ids, told.text) == await place.python(sampling={"seed": 3, "max_tokens": LONG})


async def test_streams_go_on_when_their_worker_is_killed(
    kafka: Kafka, ask_program: Path, models: tuple[Path, Path], tmp_path: Path
) -> None:
    """Kill -9 with a second worker there: nothing is lost, doubled or changed."""
    site = await asyncio.to_thread(new_site, "go-kill", kafka, tmp_path, models)
    place = Place(site, ask_program)
    # One job for each partition, so that both workers have some.
    ids = {reply_partition(name, PARTITIONS): name for name in (f"job-{n}" for n in range(200))}
    asked = [
        (f"-id={ids[number]}", f"-seed={number}", f"-max-tokens={LONG}", "-ignore-eos", PROMPT)
        for number in range(PARTITIONS)
    ]
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(site.worker("one", invariant=1))
        await stack.enter_async_context(site.worker("two", invariant=1))
        streams = [await stack.enter_async_context(place.asking(*each)) for each in asked]
        await asyncio.gather(*(stream.read(5) for stream in streams))
        one.signal(signal.SIGKILL)
        told = await asyncio.gather(*(stream.rest() for stream in streams))
        undisturbed = await asyncio.gather(
            *(
                place.python(sampling={"seed": number, "max_tokens": LONG})
                for number in range(PARTITIONS)
            )
        )
    assert [(each.ids, each.text) for each in told] == undisturbed
    logs = await site.logs(TENANT)
    taken_over = 0
    for name in (ids[number] for number in range(PARTITIONS)):
        reader = VisibleStream()
        for record in logs[name]:
            taken_over += isinstance(record, ClaimRecord) and reader.count > 0
            reader.feed(record)
        assert reader.finished
    assert taken_over > 0
    print(f"{taken_over} of {PARTITIONS} streams were taken over in their middle")
