"""Jobs and cancellations: what goes in comes out, defaults, and what the models refuse."""

import msgpack
import pytest
from hypothesis import given
from pydantic import ValidationError

from aril.schemas import (
    Cancel,
    DecodeError,
    ErrorCode,
    Job,
    JobError,
    Message,
    Sampling,
    decode_request,
    encode_request,
    limits,
)
from tests.support.records import REQUESTS


@given(REQUESTS)
def test_round_trip(request_: Job | Cancel) -> None:
    """Every valid request is the same after encoding and decoding."""
    assert decode_request(encode_request(request_)) == request_


def test_defaults() -> None:
    """A job that says nothing about sampling is sampled as the OpenAI interface would."""
    sampling = Job(id="j", tenant="t", prompt="p").sampling
    assert sampling.model_dump() == {
        "max_tokens": None,
        "min_tokens": 0,
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "seed": None,
        "stop": (),
        "stop_token_ids": (),
        "ignore_eos": False,
        "logit_bias": {},
        "n": 1,
        "best_of": 1,
        "prompt_logprobs": None,
        "response_format": None,
        "regex": None,
        "choice": None,
        "grammar": None,
        "logprobs": None,
    }


def test_defaults_stay_off_the_wire() -> None:
    """Only what a job says is sent, so a job is small and readable in a dump."""
    assert msgpack.unpackb(encode_request(Job(id="j", tenant="t", prompt="p"))) == {
        "v": 1,
        "kind": "job",
        "id": "j",
        "tenant": "t",
        "prompt": "p",
    }


def test_metadata_is_not_shared_between_jobs() -> None:
    """The default of a map is a new map for each job."""
    one, two = (Job(id=name, tenant="t", prompt="p") for name in "ab")
    one.metadata["k"] = "v"
    assert two.metadata == {}


def test_lists_are_welcome_from_python() -> None:
    """A producer in Python may give lists where the job holds tuples."""
    job = Job(id="j", tenant="t", token_ids=[1, 2], sampling=Sampling(stop=["x"]))  # type: ignore[arg-type]  # pydantic turns lists into tuples
    assert (job.token_ids, job.sampling.stop) == ((1, 2), ("x",))


def test_longest_prompt_of_tokens() -> None:
    """The bounds on token ids are inclusive, in number and in value, and fit one record."""
    job = Job(id="j", tenant="t", token_ids=(limits.MAX_TOKEN_ID,) * limits.MAX_PROMPT_TOKENS)
    assert decode_request(encode_request(job)) == job


def test_too_large_for_a_record() -> None:
    """A job within all other bounds may still be too many bytes; its producer is told."""
    turns = tuple(Message(role="user", content="🍎" * 100_000) for _ in range(5))
    with pytest.raises(JobError) as caught:
        encode_request(Job(id="j", tenant="t", messages=turns))
    assert caught.value.code is ErrorCode.LIMIT_EXCEEDED
    assert caught.value.limit == limits.MAX_REQUEST_BYTES
    assert isinstance(caught.value.given, int)
    assert caught.value.given > 2_000_000


def test_messages_are_bounded_together() -> None:
    """Many turns, each within the bound, are refused if they pass it together."""
    turns = [{"role": "user", "content": "x" * 300_000}] * 2
    data = msgpack.packb({"v": 1, "kind": "job", "id": "j", "tenant": "t", "messages": turns})
    with pytest.raises(DecodeError) as caught:
        decode_request(data)
    error = caught.value
    assert (error.code, error.limit, error.given) == ("prompt_too_long", 500_000, 600_000)


def test_error_names_field_and_limit() -> None:
    """What a tenant reads says which field broke which bound."""
    fields = {"v": 1, "kind": "job", "id": "j", "tenant": "t", "prompt": "p"}
    with pytest.raises(DecodeError) as caught:
        decode_request(msgpack.packb({**fields, "sampling": {"max_tokens": 200_000}}))
    assert str(caught.value) == ("limit_exceeded: sampling.max_tokens: at most 131072, not 200000")


def test_error_tells_where_an_answer_is_awaited() -> None:
    """A job that is refused still says on which partition its client listens, if that is valid."""
    fields = {"v": 2, "kind": "job", "id": "j", "tenant": "t"}
    for sent, known in ((5, 5), (-1, None), (True, None), ("5", None), (2**31, None)):
        with pytest.raises(DecodeError) as caught:
            decode_request(msgpack.packb({**fields, "reply_partition": sent}))
        assert caught.value.reply_partition == known


def test_repr_hides_what_a_tenant_wrote() -> None:
    """A job that ends up in a log line shows neither prompt nor metadata."""
    turns = (Message(role="user", content="secret"),)
    for prompt in ({"prompt": "secret"}, {"messages": turns}):
        job = Job(id="j", tenant="t", metadata={"secret": "secret"}, **prompt)
        assert "secret" not in repr(job) + str(job) + repr(turns)


def test_validation_error_hides_what_a_tenant_wrote() -> None:
    """Building a bad job in Python does not put its prompt into the traceback either."""
    with pytest.raises(ValidationError) as caught:
        Job(id="j", tenant="t", prompt="secret" * 100_000)
    assert "secret" not in str(caught.value)
