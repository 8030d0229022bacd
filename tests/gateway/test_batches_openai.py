"""OpenAI's own client in Python: files and batches, against a real worker behind a real gateway."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.batch_site import chat_line
from tests.support.gateway_files import OVER, jsonl
from tests.support.gateway_stand import KEY

openai = pytest.importorskip("openai")

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.gateway_stand import Stand

pytestmark = [pytest.mark.slow, pytest.mark.kafka]

ENDPOINT: Any = "/v1/chat/completions"
OVER_SECONDS = 120.0
LINES = 200
"""Of a batch that is not over before it can be cancelled."""


@pytest.fixture
def client(stand: Stand) -> Iterator[Any]:
    """Return the client as its users make it."""
    with openai.OpenAI(base_url=f"{stand.url}/v1", api_key=KEY, timeout=120) as client:
        yield client


def make(client: Any, *lines: object, **others: Any) -> Any:
    """Upload lines and make a batch of them."""
    file = client.files.create(file=("in.jsonl", jsonl(*lines)), purpose="batch")
    return client.batches.create(
        input_file_id=file.id, endpoint=ENDPOINT, completion_window="24h", **others
    )


def over(client: Any, batch: Any) -> Any:
    """Poll until a batch is over."""
    until = time.monotonic() + OVER_SECONDS
    while batch.status not in OVER and time.monotonic() < until:
        time.sleep(0.2)
        batch = client.batches.retrieve(batch.id)
    return batch


def results(client: Any, file: str) -> list[Any]:
    """Download a file of results."""
    return [json.loads(line) for line in client.files.content(file).text.splitlines()]


def test_a_batch_from_file_to_results(client: Any) -> None:
    """The answers are those of the endpoint, errors stand in a file of their own."""
    lines = [chat_line(f"k{at}", f"number {at}", max_tokens=6, temperature=0) for at in range(5)]
    batch = make(
        client,
        *lines,
        chat_line("terse", "number 0", model="terse", max_tokens=6, temperature=0),
        chat_line("wrong", "x", model="pirate"),
        metadata={"night": "1"},
        output_expires_after={"anchor": "created_at", "seconds": 7_200},
    )
    assert batch.status == "validating"
    batch = over(client, batch)
    assert batch.status == "completed"
    assert batch.request_counts.model_dump() == {"total": 7, "completed": 6, "failed": 1}
    assert batch.usage.output_tokens == 36
    assert batch.metadata == {"night": "1"}
    found = {each["custom_id"]: each["response"] for each in results(client, batch.output_file_id)}
    assert set(found) == {"k0", "k1", "k2", "k3", "k4", "terse"}
    asked: Any = lines[3]["body"]
    whole = client.chat.completions.create(**asked)
    answer = openai.types.chat.ChatCompletion.model_validate(found["k3"]["body"])
    assert answer.choices[0].message.content == whole.choices[0].message.content
    assert found["terse"]["body"]["choices"][0]["aril"]["adapter"] == "terse"
    (wrong,) = results(client, batch.error_file_id)
    assert (wrong["custom_id"], wrong["error"]["code"]) == ("wrong", "unknown_adapter")
    assert wrong["response"]["status_code"] == 404
    output = client.files.retrieve(batch.output_file_id)
    assert (output.purpose, output.expires_at - output.created_at) == ("batch_output", 7_200)


def test_nothing_of_a_prompt_is_in_the_log(client: Any, stand: Stand) -> None:
    """Which batch came to what is."""
    batch = over(client, make(client, chat_line("a-key", "a secret", max_tokens=1)))
    log = stand.gateway.log.read_text()
    assert f"batch={batch.id} status=completed total=1" in log
    assert "a-key" not in log
    assert "a secret" not in log


def test_cancelling(client: Any) -> None:
    """What runs is ended; each line is told of."""
    lines = [
        chat_line(f"k{at}", f"number {at}", max_tokens=400, ignore_eos=True) for at in range(LINES)
    ]
    batch = make(client, *lines)
    until = time.monotonic() + OVER_SECONDS
    while batch.status != "in_progress" and time.monotonic() < until:
        time.sleep(0.1)
        batch = client.batches.retrieve(batch.id)
    assert client.batches.cancel(batch.id).status == "cancelling"
    batch = over(client, batch)
    assert batch.status == "cancelled"
    counts = batch.request_counts
    assert (counts.total, counts.completed + counts.failed) == (LINES, LINES)
    keys = [each["custom_id"] for each in results(client, batch.error_file_id)]
    if batch.output_file_id:
        keys += [each["custom_id"] for each in results(client, batch.output_file_id)]
    assert sorted(keys) == sorted(f"k{at}" for at in range(LINES))


def test_errors_by_line(client: Any) -> None:
    """A file that is unfit is told of line by line."""
    batch = over(client, make(client, chat_line("k", "a"), chat_line("k", "b"), {"custom_id": 5}))
    assert batch.status == "failed"
    assert [(each.line, each.code) for each in batch.errors.data] == [
        (2, "duplicate_custom_id"),
        (3, "invalid_request"),
    ]


def test_lists_and_files(client: Any) -> None:
    """Pages are followed to the end; what is deleted is gone."""
    made = [make(client, chat_line("k", f"page {at}", max_tokens=1)).id for at in range(5)]
    listed = [each.id for each in client.batches.list(limit=2)]
    assert listed[:5] == made[::-1]
    files = [client.files.create(file=("a.jsonl", b"{}\n"), purpose="batch") for _ in range(3)]
    seen = [each.id for each in client.files.list(limit=2, purpose="batch")]
    assert seen[:3] == [each.id for each in files[::-1]]
    assert client.files.delete(files[0].id).deleted
    for call in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError):
            call(files[0].id)
    with pytest.raises(openai.BadRequestError) as refused:
        client.files.create(file=("a.jsonl", b"{}\n"), purpose="fine-tune")
    assert refused.value.param == "purpose"
    with pytest.raises(openai.NotFoundError):
        client.batches.retrieve("batch_unknown")
    with pytest.raises(openai.BadRequestError):
        client.batches.create(
            input_file_id=files[1].id, endpoint="/v1/embeddings", completion_window="24h"
        )
