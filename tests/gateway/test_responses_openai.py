"""OpenAI's own client in Python: its Responses interface, over a real worker and gateway."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.gateway_stand import KEY

openai = pytest.importorskip("openai")

if TYPE_CHECKING:
    from tests.support.gateway_stand import Stand

pytestmark = [pytest.mark.slow, pytest.mark.kafka]

ASKED: dict[str, Any] = {
    "model": "aril",
    "input": "what is the capital of France?",
    "temperature": 0,
    "max_output_tokens": 12,
}
SECONDS = 60.0


@pytest.fixture
def client(stand: Stand) -> Any:
    """Return the client as its users make it."""
    with openai.OpenAI(base_url=f"{stand.url}/v1", api_key=KEY, timeout=120) as client:
        yield client


def ended(client: Any, name: str) -> Any:
    """Poll until a response has ended, as its documentation says."""
    until = time.monotonic() + SECONDS
    while (found := client.responses.retrieve(name)).status in {"queued", "in_progress"}:
        assert time.monotonic() < until
        time.sleep(0.1)
    return found


def test_whole_streamed_and_in_the_background(client: Any) -> None:
    """The same cost however it is asked for, the same text by the id; as the client types it."""
    whole = client.responses.create(**ASKED)
    assert whole.output_text
    assert (whole.status, whole.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert whole.usage.output_tokens == 12
    assert client.responses.retrieve(whole.id).output_text == whole.output_text
    events = list(client.responses.create(**ASKED, stream=True))
    deltas = [each.delta for each in events if each.type == "response.output_text.delta"]
    assert "".join(deltas) == client.responses.retrieve(events[0].response.id).output_text
    assert [each.sequence_number for each in events] == [*range(len(events))]
    assert type(events[-1]).__name__ == "ResponseIncompleteEvent"
    begun = client.responses.create(**ASKED, background=True)
    assert begun.status == "queued"
    assert ended(client, begun.id).usage == whole.usage


def test_going_on_behind_a_number(client: Any) -> None:
    """A background stream that is dropped is gone on with, by the number of its last event."""
    given: list[Any] = []
    with client.responses.create(**ASKED, background=True, stream=True) as stream:
        for event in stream:
            given.append(event)
            if event.type == "response.output_text.delta":
                break
    name = given[0].response.id
    rest = list(
        client.responses.retrieve(name, stream=True, starting_after=given[-1].sequence_number)
    )
    assert [each.sequence_number for each in given + rest] == [*range(len(given + rest))]
    text = "".join(each.delta for each in given + rest if each.type == "response.output_text.delta")
    assert text == ended(client, name).output_text


def test_the_streaming_helper(client: Any) -> None:
    """What adds events up makes the whole of them, from the beginning and by the id."""
    asked = ASKED | {"text": {"format": FORM}, "max_output_tokens": 200}
    with client.responses.stream(**asked, background=True) as stream:
        name = next(iter(stream)).response.id
    with client.responses.stream(response_id=name, starting_after=2) as stream:
        numbers = [each.sequence_number for each in stream]
        final = stream.get_final_response()
    assert numbers[0] == 3
    assert final.output_text in {'"yes"', '"no"'}
    assert final.output_text == ended(client, name).output_text


def test_cancel(client: Any) -> None:
    """A response that is cancelled says so, then and later."""
    long = ASKED | {"max_output_tokens": 400}
    begun = client.responses.create(**long, background=True, extra_body={"ignore_eos": True})
    found = client.responses.cancel(begun.id)
    assert found.status in {"cancelled", "queued", "in_progress"}
    assert ended(client, begun.id).status == "cancelled"


def test_errors(client: Any) -> None:
    """As the client's own exceptions, with the contract's code."""
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(**ASKED, previous_response_id="resp_x")
    assert (caught.value.param, caught.value.code) == ("previous_response_id", "invalid_job")
    with pytest.raises(openai.NotFoundError) as lost:
        client.responses.retrieve("resp_0.99999999.a")
    assert lost.value.code == "stream_lost"
    with pytest.raises(openai.NotFoundError):
        client.responses.create(**(ASKED | {"model": "no-such-adapter"}))
    with pytest.raises(openai.APIStatusError) as kept:
        client.responses.delete(client.responses.create(**ASKED).id)
    assert kept.value.status_code == 405


FORM = {
    "type": "json_schema",
    "name": "verdict",
    "schema": {"type": "string", "enum": ["yes", "no"]},
}
