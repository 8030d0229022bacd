"""What is printed of letters: no prompt unless it is asked for, nothing that a terminal obeys."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import pytest

from aril.commands import dlq_show
from aril.dead_letters.letter import Place, note_headers
from aril.dead_letters.replaying import Planned, Replayed
from aril.dead_letters.rulings import Refusal
from aril.dead_letters.selection import Letters, Selection
from aril.schemas import Job, Message, Sampling, encode_request
from aril.schemas.json_form import to_json
from tests.support.letters import JOB, letter, raw, record

if TYPE_CHECKING:
    from aril.dead_letters.letter import Raw

HEADERS = [("traceparent", b"00-trace")]
RICH = Job(
    id="j1",
    tenant="acme",
    messages=(Message(role="user", content="a secret prompt"),),
    adapter="terse",
    metadata={"who": "a secret name"},
    deadline_ms=5_000,
    sampling=Sampling(max_tokens=4, regex="secret+"),
)


def letters(*raws: Raw, most: int = 10) -> Letters:
    """Return letters with their bodies."""
    found = Letters(Selection(), jobs_topic="jobs", most=most, bodies=True)
    for each in raws:
        found.add(each)
    return found


def details(capsys: pytest.CaptureFixture[str], found: Letters, **how: Any) -> str:
    """Return what `show` prints."""
    dlq_show.print_details(found, **({"body": False, "as_json": False} | how))
    return capsys.readouterr().out


def test_the_table_has_a_line_a_letter(capsys: pytest.CaptureFixture[str]) -> None:
    """With what became of it; what is not shown is counted beside it."""
    note = raw()._replace(headers=tuple(note_headers(letter(), Place("jobs", 5, 93))))
    forged = raw(record(offset=18), "unsigned")
    cut = raw(record(offset=16), cut=True)
    found = letters(raw(), note, forged, cut, raw()._replace(headers=()))
    dlq_show.print_list(found, as_json=False)
    out, err = capsys.readouterr()
    header, third, second, first = out.splitlines()
    assert header.split() == ["PUT", "ASIDE", "TENANT", "JOB", "REASON", "CODE", "PLACE"]
    assert "replayed to jobs/5/93" in first
    assert " acme? " in second
    assert third.endswith("cut")
    assert "1 record in the topic that no worker put aside" in err
    dlq_show.print_list(letters(raw(), forged, most=1), as_json=False)
    assert "1 more" in capsys.readouterr().err


def test_the_prompt_is_shown_where_it_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    """As JSON, whichever form it came in; without `--body` no word of the sender's but names."""
    for value in (encode_request(RICH), to_json(encode_request(RICH))):
        found = letters(raw(record(value, headers=HEADERS)))
        told = details(capsys, found)
        assert "secret" not in told
        assert "00-trace" not in told
        assert "--body shows it" in told
        for part in ("messages 1 message", "adapter terse", "max_tokens 4", "deadline_ms 5000"):
            assert part in told
        assert "also_set metadata; regex" in told
        shown = details(capsys, found, body=True)
        assert '"a secret prompt"' in shown
        assert "traceparent: 00-trace" in shown


def test_json_is_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    """The body as base64 of its very bytes; `ls` has no body at all."""
    found = letters(raw(record(headers=HEADERS)), raw(record(b"\xc1", offset=18), "not_msgpack"))
    broken, whole = json.loads(details(capsys, found, as_json=True))
    assert "body" not in whole
    assert whole["headers"] == [{"name": "traceparent", "bytes": 8}]
    assert whole["asks"] == {"prompt": "15 characters"}
    assert "not one well-formed" in broken["not_a_job"] or "msgpack" in broken["not_a_job"]
    broken, whole = json.loads(details(capsys, found, as_json=True, body=True))
    assert base64.b64decode(whole["body"]) == encode_request(JOB)
    assert base64.b64decode(broken["body"]) == b"\xc1"
    assert whole["headers"][0]["value"] == "00-trace"
    dlq_show.print_list(found, as_json=True)
    assert "secret" not in capsys.readouterr().out


@pytest.mark.parametrize("value", [b"\x1b]0;title\x07", b'{"a": "\x1b[2J"}', b"", None])
def test_a_terminal_obeys_nothing_of_it(
    capsys: pytest.CaptureFixture[str], value: bytes | None
) -> None:
    """Bodies, keys and headers are strangers' bytes."""
    headers = [("\x1b[1m", b"\x1b[2J")]
    found = letters(raw(record(value, key=b"\x1b[3m", headers=headers), message="\x1b[4m"))
    assert "\x1b" not in details(capsys, found, body=True)
    dlq_show.print_list(found, as_json=False)
    assert "\x1b" not in capsys.readouterr().out


def test_of_a_cut_letter_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    """Its beginning, and how much it was."""
    long = record(b'{"prompt": "' + b"x" * 100_000)
    shown = details(capsys, letters(raw(long, cut=True)), body=True)
    assert "cut_from    100012" in shown
    assert shown.count("x") > 65_000


@pytest.mark.parametrize("as_json", [False, True])
def test_each_outcome_of_a_replay(capsys: pytest.CaptureFixture[str], as_json: bool) -> None:
    """A line each, or an object; a flag that would help is named."""
    printer = dlq_show.ReplayPrinter(as_json=as_json)
    to = Place("jobs", 5, 93)
    printer.refused(Planned(letter(), Refusal("replayed", "it was replayed", "--again")))
    printer.would(letter())
    printer.done(letter(), Replayed(to))
    printer.done(letter(), Replayed(to, "no note"))
    printer.done(letter(), Replayed(None, "gone"))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    if not as_json:
        assert "(--again replays it)" in lines[0]
        assert lines[3].endswith("is at jobs/5/93 now; no note")
        return
    told = [json.loads(line) for line in lines]
    assert [each["outcome"] for each in told] == [
        "refused",
        "would_replay",
        "replayed",
        "not_noted",
        "failed",
    ]
    assert (told[0]["flag"], told[2]["to"], told[4]["why"]) == ("--again", "jobs/5/93", "gone")
    assert all(each["place"] == "jobs/5/17" for each in told)
