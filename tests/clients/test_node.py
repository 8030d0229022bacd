"""The client for Node.js on a real broker, beside the one in Python: the same answers, resumed."""

from __future__ import annotations

import asyncio
import signal
import uuid
from typing import TYPE_CHECKING

import pytest

from aril import Signer
from aril.schemas import ClaimRecord, VisibleStream
from aril.worker.topics.admin import Contract, TopicPlan, ensure_topics
from tests.clients.live_node import Asking, ask, asking, build, connection, unit_tests
from tests.integration.conftest import Site
from tests.support.signing import put_key
from tests.support.tiny import ATTENTION, make_tiny_adapter, make_tiny_model

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from aril import Completion
    from tests.support.brokers import Kafka
    from tests.support.workers import WorkerProcess

pytestmark = [pytest.mark.slow, pytest.mark.kafka, pytest.mark.timeout(600)]

PARTITIONS = 8
TENANT = "acme"
SEED = 2**63 - 25  # no JavaScript number
PATIENCE = 200.0


@pytest.fixture(scope="module", autouse=True)
def built() -> None:
    """Build the client once."""
    build()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Make a tiny model, and an adapter of the tenant."""
    folder = tmp_path_factory.mktemp("node")
    backbone = make_tiny_model(folder / "tiny")
    adapter = folder / "store" / TENANT / "terse"
    make_tiny_adapter(adapter, backbone, rank=4, targets=ATTENTION, seed=4)
    return backbone, folder / "store"


def site_of(kafka: Kafka, folder: Path, model: tuple[Path, Path]) -> Site:
    """Create topics that nobody else uses."""
    stem = uuid.uuid4().hex[:6]
    contract = Contract(
        jobs_topic=f"jobs-{stem}", dlq_topic=f"dlq-{stem}", replies_prefix=f"replies-{stem}."
    )
    plan = TopicPlan(jobs_partitions=PARTITIONS, reply_partitions=PARTITIONS)
    asyncio.run(ensure_topics(kafka.bootstrap, contract, [TENANT], plan))
    return Site(kafka, folder, *model, contract)


@pytest.fixture(scope="module")
def site(
    kafka: Kafka, tmp_path_factory: pytest.TempPathFactory, model: tuple[Path, Path]
) -> Iterator[Site]:
    """Have one worker for all that needs no other. What it answers depends on nobody's load."""
    made = site_of(kafka, tmp_path_factory.mktemp("one"), model)
    with made.worker("one", invariant=1).standing():
        yield made


@pytest.fixture
def own_site(kafka: Kafka, tmp_path: Path, model: tuple[Path, Path]) -> Site:
    """Have topics for one test, whose workers are its own affair."""
    return site_of(kafka, tmp_path, model)


def at(site: Site, *arguments: str) -> list[str]:
    """Return the example's arguments at a site; answers have the length that is asked for."""
    names = (site.contract.jobs_topic, site.contract.replies_prefix)
    where = connection(site.kafka.bootstrap, TENANT, names)
    return [*where, "--seed", str(SEED), "--ignore-eos", *arguments]


async def by_python(site: Site, prompt: str, tokens: int, adapter: str | None = None) -> Completion:
    """Ask the same by the client in Python."""
    sampling = {"max_tokens": tokens, "seed": SEED, "ignore_eos": True}
    async with site.client(TENANT) as client:
        return await client.complete(prompt, adapter=adapter, sampling=sampling, timeout=PATIENCE)


def check_same(run: Asking, answer: Completion) -> None:
    """Check that what was told, and the whole at the end, is the other client's answer."""
    assert (run.process.returncode, run.err) == (0, "")
    assert run.ids() == run.answer["tokenIds"] == list(answer.token_ids)
    assert run.text() == run.answer["text"] == answer.text
    told = {name: run.answer[name] for name in ("adapter", "digest", "base", "seed", "resets")}
    assert told == {
        "adapter": answer.adapter,
        "digest": answer.digest,
        "base": answer.base,
        "seed": str(answer.seed),
        "resets": 0,
    }


def test_its_own_tests_pass() -> None:
    """All vectors of the contract, the reader, memory, resuming: `npm test`."""
    code, told = unit_tests()
    assert code == 0, told
    print(*(line for line in told.splitlines() if "SKIP" in line), sep="\n")


@pytest.mark.parametrize("adapter", [None, "terse"])
async def test_an_answer_is_that_of_the_other_client(site: Site, adapter: str | None) -> None:
    """The same question with the same seed: tokens, text and what is told of it, an adapter too."""
    asked = ("--max-tokens", "40", *(("--adapter", adapter) if adapter else ()))
    run = await ask(*at(site, *asked), "the aril carries")
    check_same(run, await by_python(site, "the aril carries", 40, adapter))
    assert run.answer["usage"]["completionTokens"] == 40
    assert (run.answer["adapter"], run.answer["seed"]) == (adapter, str(SEED))
    assert len(run.of("tokens")) > 1


async def test_an_error_has_its_code_limit_and_value(site: Site) -> None:
    """More tokens than the contract allows: told by the worker, and thrown."""
    run = await ask(*at(site, "--max-tokens", "131073"), "hello")
    [failed] = run.of("failed")
    told = {name: failed[name] for name in ("code", "limit", "given", "retryable")}
    assert told == {
        "code": "limit_exceeded",
        "limit": 131072,
        "given": 131073,
        "retryable": False,
    }
    assert (run.process.returncode, run.events) == (1, [failed])
    assert run.err.endswith("(limit 131072, given 131073)\n")


async def test_a_job_is_cancelled(site: Site) -> None:
    """The stream ends in `cancelled`, in the middle of its answer."""
    run = await ask(*at(site, "--max-tokens", "450", "--cancel-after", "3"), "a long story")
    [failed] = run.of("failed")
    assert (run.process.returncode, failed["code"]) == (1, "cancelled")
    assert 3 <= len(run.ids()) < 450


async def test_the_same_id_gets_the_first_answer(site: Site) -> None:
    """By another process, in either language, also after the end: it is led back to the first."""
    asked = at(site, "--max-tokens", "30", "--id", "order-81")
    first = await ask(*asked, "hello")
    again = await ask(*asked, "hello")
    assert first.ids() == again.ids()
    assert first.of("tokens")[0]["token"] == again.of("tokens")[0]["token"]  # the same place
    sampling = {"max_tokens": 30, "seed": SEED, "ignore_eos": True}
    async with site.client(TENANT) as client:
        other = await client.complete("hello", job_id="order-81", sampling=sampling, timeout=60)
    check_same(again, other)


async def test_killed_in_mid_stream_another_process_has_exactly_the_rest(site: Site) -> None:
    """Kill -9 of the program, after which another goes on from the last token that it told."""
    async with asking(*at(site, "--max-tokens", "300"), "one two three") as first:
        async for _ in first.lines():
            if len(first.ids()) >= 5:
                first.process.kill()
                break
        token = first.events[-1]["token"]
        before = first.ids()  # what came with the kill is not counted: nobody has seen it
    assert not first.of("done")
    rest = await ask(*at(site), "--resume", token)
    answer = await by_python(site, "one two three", 300)
    assert before + rest.ids() == list(answer.token_ids)
    assert first.text() + rest.text() == rest.answer["text"] == answer.text


async def test_a_stream_goes_on_in_the_other_language(site: Site) -> None:
    """Begun in one, left, and ended in the other: both ways, by the token's text."""
    left = await ask(*at(site, "--max-tokens", "300", "--stop-after", "5"), "seven eight")
    token = left.err.removeprefix("\n--resume ").strip()
    assert left.process.returncode == 0
    async with site.client(TENANT) as client:
        rest = client.resume(token, timeout=PATIENCE)
        ids = [each async for event in rest for each in getattr(event, "ids", ())]
        whole = (await rest.result()).token_ids
        assert left.ids() + ids == list(whole)
        assert len(whole) == 300

        sampling = {"max_tokens": 300, "seed": SEED, "ignore_eos": True}
        begun = client.stream("seven eight", sampling=sampling, timeout=PATIENCE)
        seen: list[int] = []
        async for event in begun:
            seen.extend(getattr(event, "ids", ()))
            if len(seen) >= 5:
                token = str(begun.detach())
    after = await ask(*at(site), "--resume", token)
    assert seen + after.ids() == list(whole)
    assert after.answer["tokenIds"] == list(whole)


async def test_a_killed_worker_loses_and_doubles_nothing(own_site: Site) -> None:
    """Kill -9 of a worker in mid-stream, with a second one there: as if nothing had been."""
    prompts = [f"question {number}" for number in range(16)]
    names = [f"storm-{number}" for number in range(16)]
    settings = {"invariant": 1, "max_rows": 16, "kv_tokens": 8192}
    async with own_site.worker("one", **settings) as one, own_site.worker("two", **settings) as two:
        calm = await asyncio.gather(*(by_python(own_site, each, 200) for each in prompts))
        asked = [argument for name in names for argument in ("--id", name)]
        async with asking(*at(own_site, "--max-tokens", "200", *asked), *prompts) as storm:
            begun: set[str] = set()
            async for event in storm.lines():
                begun.add(event["job"])
                if len(begun) == len(names):
                    one.signal(signal.SIGKILL)
                    break
            assert not storm.of("answer")
            assert await storm.end() == 0, storm.err
        assert await two.metric("aril_claims_total") > 0
    for name, answer in zip(names, calm, strict=True):
        [whole] = storm.of("answer", name)
        assert storm.ids(name) == whole["tokenIds"] == list(answer.token_ids)
        assert storm.text(name) == whole["text"] == answer.text
        assert whole["resets"] == len(storm.of("reset", name)) == 0
    assert await taken_over_in_the_middle(own_site, names)


async def taken_over_in_the_middle(site: Site, names: list[str]) -> int:
    """Count the jobs of which another worker took over a part of the answer, but not all."""
    count = 0
    logs = await site.logs(TENANT)
    for name in names:
        stream = VisibleStream()
        for record in logs[name]:
            claimed = isinstance(record, ClaimRecord) and 0 < stream.count < 200
            count += claimed and record.worker != stream.writer
            stream.feed(record)
    return count


async def test_jobs_are_signed(own_site: Site, tmp_path: Path) -> None:
    """A worker that asks for signatures serves its tenant's job, and heeds its cancel."""
    signer, keys = Signer.new(), tmp_path / "keys"
    put_key(keys, TENANT, signer)
    signer.save(tmp_path / "acme.key")
    worker: WorkerProcess = own_site.worker("one", tenant_from="signature", tenant_keys=keys)
    key = ("--key", str(tmp_path / "acme.key"))
    async with worker:
        run = await ask(*at(own_site, *key, "--max-tokens", "5"), "hello")
        assert (run.process.returncode, len(run.ids())) == (0, 5), run.err
        cancelled = await ask(
            *at(own_site, *key, "--max-tokens", "450", "--cancel-after", "3"), "hi"
        )
        assert cancelled.of("failed")[0]["code"] == "cancelled"
        assert await worker.metric("aril_dead_letters_total") == 0
