"""Lines of a file: what they ask for, by which ids, and what makes a file unfit."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aril.batches import lines
from aril.batches.lines import MAX_LINE_BYTES, BadLine, Line, Manner, question_of, read_lines
from aril.schemas import is_job_id
from tests.support.batch_site import MANNER, chat_line


def read(*lines: Any, manner: Manner = MANNER) -> list[Line]:
    """Read lines, of which none is bad."""
    found = [*read_lines(io.BytesIO(b"".join(raw(line) for line in lines)), manner)]
    assert not [each for each in found if isinstance(each, BadLine)]
    return [each for each in found if isinstance(each, Line)]


def raw(line: Any) -> bytes:
    """Write a line."""
    return (line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n"


def ids_of(line: Line, manner: Manner = MANNER) -> list[str]:
    """Return the ids of a line's jobs, first attempts."""
    question = question_of(line, manner)
    assert question.refusal is None
    return [question.job_id("name", at, 0) for at in range(len(question.jobs))]


def test_ids_are_of_what_is_asked() -> None:
    """Neither the place nor the neighbours matter, another word does."""
    one, two = chat_line("k1", "a"), chat_line("k2", "a")
    first, second = read(one, two)
    again, _, moved = read(two, {"prompt": "between"}, one)
    assert (again.digest, moved.digest) == (second.digest, first.digest)
    assert ids_of(moved) == ids_of(first) != ids_of(second)
    (changed,) = read(chat_line("k1", "b"))
    assert ids_of(changed) != ids_of(first)


def test_ids_are_of_the_flags_too() -> None:
    """The same line under another default asks for something else."""
    other = Manner({"sampling": {"temperature": 0.0}}, tenant="acme")
    line = chat_line("k1", "a")
    assert ids_of(read(line)[0]) != ids_of(read(line, manner=other)[0], other)
    for changed in (
        Manner({"sampling": {}}, tenant="zeta"),
        Manner({"sampling": {}}, tenant="acme", raw=True),
        Manner({"sampling": {}}, tenant="acme", system="Be"),
        Manner({"sampling": {}}, tenant="acme", bases={"gpt"}),
    ):
        assert read(line)[0].digest != read(line, manner=changed)[0].digest


def test_equal_lines_without_an_id_are_told_apart() -> None:
    """By their place; they are two questions, though they read the same."""
    line = {"prompt": "a", "messages": None}
    first, second = read({"prompt": "a"}, {"prompt": "a"})
    assert first.digest != second.digest
    assert ids_of(first) != ids_of(second)
    assert read(line)[0].key is None


def test_attempts_and_choices_have_ids_of_their_own() -> None:
    """All of them fit for jobs, however long the name."""
    (line,) = read(chat_line("k", "a", n=128))
    question = question_of(line, MANNER)
    ids = {
        question.job_id("n" * 16 + "-999", at, attempt)
        for at in range(len(question.jobs))
        for attempt in (0, 1, 503)
    }
    assert len(ids) == 3 * 128
    assert all(is_job_id(each) for each in ids)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"{", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"a": ' + b"9" * 5_000 + b"}", "not JSON"),
        (b"[]", "not a JSON object"),
        (b'"\xff"', "not UTF-8"),
        ({"custom_id": 5, "body": {}}, "custom_id must be a text"),
        ({"body": {}}, "custom_id must be a text"),
        ({"custom_id": "", "body": {}}, "custom_id must be a text"),
        ({"id": "x" * 513, "prompt": "a"}, "id must be a text"),
        ({"custom_id": "k", "body": {}, "prompt": "a"}, "unknown field 'prompt'"),
        ({"prompt": "a", "temperature": 1}, "unknown field 'temperature'"),
        ({"custom_id": "k", "method": "GET", "url": "/v1/models"}, "method must be POST"),
        ({"id": "was", "prompt": "b"}, "'was' is the id of a line before"),
        (b'{"prompt": "' + b"x" * MAX_LINE_BYTES + b'"}', "more than 16000000 bytes"),
    ],
)
def test_what_makes_a_file_unfit(line: Any, told: str) -> None:
    """Is told with its line, blank ones counted; the others are read all the same."""
    data = b"\xef\xbb\xbf" + raw({"id": "was", "prompt": "a"}) + b"\n" + raw(line)
    first, bad = read_lines(io.BytesIO(data), MANNER)
    assert isinstance(first, Line)
    assert str(bad).startswith(f"line 3: {told}")


@pytest.mark.parametrize(
    ("line", "param"),
    [
        (chat_line("k", "a", top_p=2), "top_p"),
        (chat_line("k", "a", model="No"), "model"),
        (chat_line("k", "a", n=10**400), "n"),
        (chat_line("k", "a") | {"url": "/v1/embeddings"}, "url"),
        (chat_line("k", "a") | {"url": None}, "url"),
        ({"custom_id": "k"}, "url"),
        ({"prompt": "a", "sampling": {"top_p": 2}}, "top_p"),
        ({"prompt": "a", "sampling": 5}, "sampling"),
        ({"prompt": "a", "sampling": {"colour": 1}}, "colour"),
        ({"prompt": "a", "deadline": "soon"}, "deadline"),
        ({"prompt": "a", "deadline": 1e300}, "deadline"),
        ({"prompt": 5}, "prompt"),
        ({"prompt": "a", "token_ids": [1]}, None),
    ],
)
def test_what_cannot_be_asked(line: dict[str, Any], param: str | None) -> None:
    """Is an error of its line, not of the file."""
    refusal = question_of(read(line)[0], MANNER).refusal
    assert refusal is not None
    assert refusal.param == param


def test_a_fault_of_ours_is_of_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes wrong with one, the others are asked, and its text is told nowhere."""
    monkeypatch.setattr(lines, "request_of", lambda *_, **__: 1 // 0)
    refusal = question_of(read(chat_line("k", "a"))[0], MANNER).refusal
    assert refusal is not None
    assert refusal.message == "cannot be asked: ZeroDivisionError"


def test_our_lines_mean_what_send_means() -> None:
    """A prompt is a chat's, unless it is raw; flags are for what a line does not say."""
    defaults = {"adapter": "terse", "adapter_scale": 0.5, "sampling": {"top_k": 4, "regex": "a"}}
    manner = Manner(defaults, system="Be brief.", tenant="acme")
    (line,) = read({"prompt": "Hi", "deadline": 1.5}, manner=manner)
    (job,) = question_of(line, manner).jobs
    assert [(each.role, each.content) for each in job["messages"]] == [  # type: ignore[union-attr]
        ("system", "Be brief."),
        ("user", "Hi"),
    ]
    assert (job["adapter"], job["adapter_scale"], job["deadline"]) == ("terse", 0.5, 1.5)
    own = {"prompt": "Hi", "adapter": "bold", "sampling": {"choice": ["a"], "top_p": 0.5}}
    raw_manner = Manner(defaults, raw=True, tenant="acme")
    (line,) = read(own, manner=raw_manner)
    (job,) = question_of(line, raw_manner).jobs
    sampling: Any = job["sampling"]
    assert (job["prompt"], job["adapter"]) == ("Hi", "bold")
    assert "adapter_scale" not in job
    assert (sampling.choice, sampling.regex, sampling.top_k, sampling.top_p) == (
        ("a",),
        None,
        4,
        0.5,
    )
    (bare,) = read({"prompt": "Hi", "adapter": None}, manner=manner)
    assert question_of(bare, manner).refusal is None


@given(
    st.lists(
        st.binary(max_size=40) | st.sampled_from([b'{"prompt":"a"}', b'{"id":"a","prompt":"b"}'])
    )
)
def test_any_bytes_are_lines_or_bad_lines(lines: list[bytes]) -> None:
    """Nothing else comes of them, and each line counts."""
    data = b"\n".join(lines)
    for found in read_lines(io.BytesIO(data), MANNER):
        if isinstance(found, Line):
            question_of(found, MANNER)
        else:
            assert str(found).startswith("line ")
