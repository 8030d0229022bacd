"""The Java client against real workers on a real broker, beside the Python client."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import uuid
from typing import TYPE_CHECKING

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from aril import Signer
from aril.schemas import TokensEvent, limits
from aril.stream import ResumeToken
from aril.worker.topics.admin import Contract, TopicPlan, ensure_topics
from tests.clients.live_java import FOLDER, Program, build, ids_of, missing_tools, text_of
from tests.integration.conftest import Site
from tests.support.signing import put_key
from tests.support.tiny import ATTENTION, make_tiny_adapter, make_tiny_model

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.brokers import Kafka

TENANT = "acme"
LONG = {"max_tokens": 400, "ignore_eos": True, "temperature": 1.2, "seed": 11}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.kafka,
    pytest.mark.timeout(600),
    pytest.mark.skipif(missing_tools() is not None, reason=missing_tools() or ""),
]


@pytest.fixture(scope="module")
def class_path() -> str:
    """Build the client."""
    return build()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder with a tiny model and a store with one adapter."""
    folder = tmp_path_factory.mktemp("site")
    backbone = make_tiny_model(folder / "tiny")
    make_tiny_adapter(folder / "store" / TENANT / "terse", backbone, rank=4, targets=ATTENTION)
    return folder


def new_site(kafka: Kafka, folder: Path, model: Path) -> Site:
    """Create topics of its own for some tests."""
    stem = uuid.uuid4().hex[:6]
    contract = Contract(
        jobs_topic=f"jobs-{stem}", dlq_topic=f"dlq-{stem}", replies_prefix=f"replies-{stem}."
    )
    plan = TopicPlan(jobs_partitions=4, reply_partitions=4)
    asyncio.run(ensure_topics(kafka.bootstrap, contract, [TENANT], plan))
    return Site(kafka, folder, model / "tiny", model / "store", contract)


@pytest.fixture(scope="module")
def program(
    kafka: Kafka, class_path: str, model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Program]:
    """Run one worker, whose answers do not depend on who shares the batch."""
    site = new_site(kafka, tmp_path_factory.mktemp("logs"), model)
    with site.worker("one", invariant=True).standing():
        yield Program(class_path, site)


@pytest.fixture
def program_alone(kafka: Kafka, class_path: str, model: Path, tmp_path: Path) -> Program:
    """Return the program on topics whose workers the test starts."""
    return Program(class_path, new_site(kafka, tmp_path, model))


def test_the_readmes_example_compiles(class_path: str, tmp_path: Path) -> None:
    """What the page shows is the file, and the file fits the library."""
    example = FOLDER / "examples/Hello.java"
    assert example.read_text() in (FOLDER / "README.md").read_text()
    compiler = ["javac", "-d", str(tmp_path), "-cp", class_path, str(example)]
    subprocess.run(compiler, check=True)


@pytest.mark.parametrize("adapter", [None, "terse"])
async def test_an_answer_is_the_python_clients(program: Program, adapter: str | None) -> None:
    """The same question with the same seed: the same tokens and text, and the same ending."""
    told = {} if adapter is None else {"adapter": adapter}
    lines = await program.ask(TENANT, prompt="the capital of Köln", **told, **LONG)
    async with program.site.client(TENANT) as client:
        answer = await client.complete("the capital of Köln", adapter=adapter, sampling=LONG)
    assert ids_of(lines) == list(answer.token_ids)
    assert text_of(lines) == answer.text
    assert len(lines) > 2, "a stream, not one reply"
    assert (lines[-1]["finish_reason"], lines[-1]["adapter"]) == ("LENGTH", adapter)


async def test_the_adapter_matters(program: Program) -> None:
    """Else the test above would hold if the client lost the adapter's name."""
    plain = await program.ask(TENANT, prompt="hello", **LONG)
    adapted = await program.ask(TENANT, prompt="hello", adapter="terse", **LONG)
    assert ids_of(plain) != ids_of(adapted)


async def test_an_error_has_its_code_limit_and_value(program: Program) -> None:
    """What a worker refuses is a typed error: the model's context is 512 tokens."""
    told = {"prompt": "hello", "max_tokens": limits.MAX_MAX_TOKENS}
    async with program.asking(TENANT, **told) as asking:
        (line,) = await asking.rest()
        assert await asking.ended() == 1
    assert line["error"] == "limit_exceeded"
    assert line["retryable"] is False
    assert isinstance(line["limit"], int)
    assert line["given"] > line["limit"]


async def test_an_unknown_adapter_is_named(program: Program) -> None:
    """An error without a limit."""
    (line,) = await program.ask(TENANT, prompt="hello", adapter="nobody")
    assert (line["error"], line["limit"]) == ("unknown_adapter", None)


async def test_cancel(program: Program) -> None:
    """A job that is cancelled in mid-answer ends in `cancelled`, behind what it had brought."""
    lines = await program.ask(TENANT, prompt="on and on", cancel_after=2, **LONG)
    assert lines[-1]["error"] == "cancelled"
    assert 0 < len(ids_of(lines)) < LONG["max_tokens"]


async def test_an_id_sent_twice_has_the_first_answer(program: Program) -> None:
    """By a program that is started again, without a seed: while the first one runs, and later."""
    told = {"prompt": "draw", "id": "order-81", "max_tokens": 200, "ignore_eos": True}
    async with program.asking(TENANT, **told) as first, program.asking(TENANT, **told) as beside:
        answers = [await first.rest(), await beside.rest()]
    answers.append(await program.ask(TENANT, **told))
    assert len(ids_of(answers[0])) == 200
    assert all(ids_of(each) == ids_of(answers[0]) for each in answers)
    assert all(text_of(each) == text_of(answers[0]) for each in answers)


async def test_resume_in_another_process_gives_exactly_the_rest(program: Program) -> None:
    """Kill -9 of the reader in mid-stream; Java goes on with its token, and so does Python."""
    begun = []
    async with program.asking(TENANT, prompt="tell me", **LONG) as asking:
        async for line in asking:
            begun.append(line)
            if len(begun) == 3:
                asking.kill()
                break
    token = begun[-1]["token"]
    rest = await program.ask(TENANT, resume=token)
    assert rest, "nothing was left: kill it earlier"
    assert rest[0]["index"] == len(ids_of(begun))
    assert len(ids_of(begun + rest)) == LONG["max_tokens"]
    async with program.site.client(TENANT) as client:
        again = [event async for event in client.resume(ResumeToken.parse(token))]
        assert ids_of(rest) == [
            token for event in again if isinstance(event, TokensEvent) for token in event.ids
        ]
        whole = await client.complete("tell me", sampling=LONG)
    assert ids_of(begun + rest) == list(whole.token_ids)
    assert text_of(begun + rest) == whole.text


async def test_a_stream_that_python_began_goes_on_in_java(program: Program) -> None:
    """The token is text of any language."""
    async with program.site.client(TENANT) as client:
        stream = client.stream("other way", sampling=LONG)
        begun: list[int] = []
        async for event in stream:
            assert isinstance(event, TokensEvent)
            begun += event.ids
            if len(begun) > 5:
                token = stream.detach()
                break
        rest = await program.ask(TENANT, resume=token)
        whole = await client.complete("other way", sampling=LONG)
    assert begun + ids_of(rest) == list(whole.token_ids)


async def test_a_token_of_what_is_not_kept(program: Program) -> None:
    """Past the end of the log there is nothing to go on from."""
    async with program.asking(TENANT, resume="0.4000000000.1.0.x") as asking:
        assert await asking.rest() == []
        assert await asking.ended() == 2


async def test_a_topic_that_is_missing_stays_so(program: Program) -> None:
    """A tenant without a reply topic is told; asking for it must not create it."""
    async with program.asking("nobody", prompt="hello") as asking:
        assert await asking.rest() == []
        assert await asking.ended() == 2
    admin = AIOKafkaAdminClient(bootstrap_servers=program.site.kafka.bootstrap)
    await admin.start()
    topics = await admin.list_topics()
    await admin.close()
    prefix = program.site.contract.replies_prefix
    assert f"{prefix}{TENANT}" in topics
    assert f"{prefix}nobody" not in topics


async def test_a_killed_worker_loses_and_doubles_nothing(program_alone: Program) -> None:
    """Kill -9 of the worker that answers: another goes on, and the tokens are the undisturbed."""
    site = program_alone.site
    async with (
        site.worker("one", invariant=True) as one,
        site.worker("two", invariant=True) as two,
        program_alone.asking(TENANT, prompt="survive", **LONG) as asking,
    ):
        begun = []
        async for line in asking:
            begun.append(line)
            if len(begun) == 3:
                break
        rows = await one.metric("aril_running_jobs")
        dead, alive = (one, two) if rows else (two, one)
        dead.signal(signal.SIGKILL)
        lines = begun + await asking.rest()
        assert await asking.ended() == 0
        assert await alive.metric("aril_claims_total") > 0, "nothing was taken over"
        async with site.client(TENANT) as client:
            whole = await client.complete("survive", sampling=LONG)
    indexes = [line["index"] for line in lines if "index" in line]
    assert not [line for line in lines if "withdrawn" in line]
    assert indexes == sorted(set(indexes))
    assert ids_of(lines) == list(whole.token_ids)
    assert text_of(lines) == whole.text


async def test_a_signed_job_is_answered(program_alone: Program, tmp_path: Path) -> None:
    """Where workers ask for signatures; and the same job unsigned is put aside, unanswered."""
    signer, private = Signer.new(), tmp_path / "acme.key"
    signer.save(private)
    put_key(tmp_path / "keys", TENANT, signer)
    settings = {"tenant_from": "signature", "tenant_keys": tmp_path / "keys"}
    async with program_alone.site.worker("signed", **settings) as worker:
        told = {"prompt": "hello", "max_tokens": 3, "ignore_eos": True}
        key = {"key": private, "key_id": signer.key_id}
        lines = await program_alone.ask(TENANT, **told, **key)
        assert len(ids_of(lines)) == 3
        async with program_alone.asking(TENANT, **told) as asking:
            async with asyncio.timeout(60):
                while not await worker.metric("aril_dead_letters_total"):  # noqa: ASYNC110
                    await asyncio.sleep(0.2)
            asking.kill()
            assert await asking.rest() == []
