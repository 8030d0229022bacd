"""How `aril dlq` shows letters: as a table, in full, or as JSON. No prompt unless asked for."""

from __future__ import annotations

import base64
import contextlib
import json
import sys
from typing import TYPE_CHECKING, Any, Final

from aril.commands.report import Report, table
from aril.dead_letters.selection import moment
from aril.render import printable
from aril.schemas import DecodeError, limits
from aril.schemas.json_form import is_json
from aril.schemas.unpack import unpack_map

if TYPE_CHECKING:
    from aril.dead_letters.letter import Letter
    from aril.dead_letters.purging import Doomed
    from aril.dead_letters.replaying import Planned, Replayed
    from aril.dead_letters.selection import Chosen, Letters
    from aril.schemas import Job

HEADER: Final = ("PUT ASIDE", "TENANT", "JOB", "REASON", "CODE", "PLACE", "")
NAME_WIDTH: Final = 12
# Fields of a job that hold no text of its tenant's.
PLAIN: Final = (
    "adapter",
    "adapters",
    "adapter_scale",
    "priority",
    "deadline_ms",
    "reply_partition",
    "reply_from",
)
PROMPTS: Final = frozenset({"prompt", "messages", "token_ids"})


def counted(number: int, noun: str) -> str:
    """Return `1 letter`, `2 letters`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def print_list(letters: Letters, *, as_json: bool) -> None:
    """Print a line a letter, and how many there are beside."""
    chosen = letters.chosen()
    if as_json:
        print(json.dumps([_fields(each) for each in chosen], indent=2, ensure_ascii=False))
    elif chosen:
        print(table(HEADER, [_row(each) for each in chosen]))
    print_left_out(letters)


def print_left_out(letters: Letters) -> None:
    """Say on standard error what is not among the letters that are shown or replayed."""
    if not letters.found:
        print("no such letter", file=sys.stderr)
    if more := letters.found - len(letters.chosen()):
        print(f"{more:,} more: --limit, or filters", file=sys.stderr)
    if letters.strangers:
        strangers = counted(letters.strangers, "record")
        print(f"{strangers} in the topic that no worker put aside: passed over", file=sys.stderr)


def print_details(letters: Letters, *, body: bool, as_json: bool) -> None:
    """Print all that is known of each letter; what its sender wrote only with `body`."""
    chosen = letters.chosen()
    if as_json:
        print(json.dumps([_all(each, body=body) for each in chosen], indent=2, ensure_ascii=False))
    else:
        print("\n\n".join(_told(each, body=body) for each in chosen), end="\n" if chosen else "")
    print_left_out(letters)


def print_doomed(topic: str, doomed: Doomed) -> None:
    """Print what a purge deletes."""
    rows = [(reason, f"{count:,}") for reason, count in sorted(doomed.reasons.items())]
    if doomed.notes:
        rows.append(("(notes of replays)", f"{doomed.notes:,}"))
    if doomed.strangers:
        rows.append(("(no letters)", f"{doomed.strangers:,}"))
    if rows:
        print(printable(table(("REASON", "LETTERS"), rows)))
    before = ", ".join(f"{topic}/{part}/{offset}" for part, offset in sorted(doomed.before.items()))
    print(f"{counted(doomed.letters, 'letter')} below {before}")


class ReplayPrinter:
    """Says what becomes of each letter: a line, or a JSON object."""

    def __init__(self, *, as_json: bool) -> None:
        self._report = None if as_json else Report()

    def refused(self, planned: Planned) -> None:
        """Say why a letter is not replayed."""
        assert planned.refused is not None, "only what is refused"  # noqa: S101 - ours
        code, text, flag = planned.refused
        self._say(planned.letter, "refused", str(planned.refused), code=code, why=text, flag=flag)

    def would(self, letter: Letter) -> None:
        """Say that a letter would be replayed."""
        source = letter.source
        self._say(letter, "would_replay", f"would go to {source.topic}/{source.partition}")

    def done(self, letter: Letter, replayed: Replayed) -> None:
        """Say where a letter's record stands now, or what went wrong."""
        to = None if replayed.to is None else str(replayed.to)
        outcome = "failed" if to is None else "not_noted" if replayed.problem else "replayed"
        text = "; ".join(part for part in (to and f"is at {to} now", replayed.problem) if part)
        self._say(letter, outcome, text, to=to, why=replayed.problem or None)

    def nothing(self, refused: bool) -> None:
        """Say that no letter is left, where some were refused."""
        if self._report is not None and refused:
            print("nothing to replay", file=sys.stderr)

    def _say(self, letter: Letter, outcome: str, text: str, **more: Any) -> None:
        if self._report is not None:
            good = outcome in {"replayed", "would_replay"}
            name = letter.asked.job_id or "-"
            line = printable(f"{letter.source}  {letter.reason}: {text}")
            self._report.line("good" if good else "bad", f"{name:<{NAME_WIDTH}}", line)
            return
        told = {name: value for name, value in more.items() if value is not None}
        names = {"place": str(letter.source), "letter": str(letter.place)}
        asked = {"tenant": letter.asked.tenant, "job": letter.asked.job_id}
        fields = names | asked | {"reason": letter.reason, "outcome": outcome} | told
        print(json.dumps(fields, ensure_ascii=False), flush=True)


def _row(chosen: Chosen) -> tuple[str, ...]:
    letter = chosen.letter
    tenant = letter.asked.tenant or "-"
    cells = (
        moment(letter.put_aside_ms),
        tenant if letter.vouched or tenant == "-" else f"{tenant}?",
        letter.asked.job_id or "-",
        letter.reason,
        letter.code,
        str(letter.source),
        _remarks(chosen),
    )
    return tuple(map(printable, cells))


def _remarks(chosen: Chosen) -> str:
    remarks = []
    if chosen.letter.cut_from is not None or chosen.letter.left_out:
        remarks.append("cut")
    if chosen.notes:
        remarks.append(f"replayed to {chosen.notes[-1].to}")
    return ", ".join(remarks)


def _fields(chosen: Chosen) -> dict[str, Any]:
    letter, copies, notes = chosen
    return {
        "place": str(letter.source),
        "letter": str(letter.place),
        "put_aside": moment(letter.put_aside_ms),
        "sent": moment(letter.sent_ms),
        "reason": letter.reason,
        "code": letter.code,
        "message": letter.message,
        "tenant": letter.asked.tenant,
        "vouched": letter.vouched,
        "job": letter.asked.job_id,
        "kind": letter.asked.kind,
        "bytes": letter.size,
        "cut_from": letter.cut_from,
        "left_out": letter.left_out,
        "copies": copies,
        "replayed": [{"at": moment(note.at_ms), "to": note.to} for note in notes],
    }


def _all(chosen: Chosen, *, body: bool) -> dict[str, Any]:
    letter = chosen.letter
    fields = _fields(chosen)
    fields["sent_ms"], fields["put_aside_ms"] = letter.sent_ms, letter.put_aside_ms
    fields["key"] = None if letter.key is None else letter.key.decode(errors="backslashreplace")
    fields["headers"] = [_header(name, value, body=body) for name, value in letter.headers]
    if letter.asked.job is not None:
        fields["asks"] = _asks(letter.asked.job)
    elif letter.asked.why:
        fields["not_a_job"] = letter.asked.why
    if body:
        fields["body"] = None if letter.value is None else base64.b64encode(letter.value).decode()
    return fields


def _header(name: str, value: bytes | None, *, body: bool) -> dict[str, Any]:
    told: dict[str, Any] = {"name": name, "bytes": len(value or b"")}
    if body and value is not None:
        told["value"] = value.decode(errors="backslashreplace")
    return told


def _asks(job: Job) -> dict[str, Any]:
    """Return what a job asks for, without its tenant's texts: of these only how long they are."""
    told: dict[str, Any] = {}
    if job.prompt is not None:
        told["prompt"] = counted(len(job.prompt), "character")
    if job.messages is not None:
        told["messages"] = counted(len(job.messages), "message")
    if job.token_ids is not None:
        told["token_ids"] = counted(len(job.token_ids), "token")
    given = job.model_dump(mode="json", exclude_defaults=True)
    told |= {name: given[name] for name in PLAIN if name in given}
    sampling = given.get("sampling", {})
    told |= {name: value for name, value in sampling.items() if isinstance(value, int | float)}
    if beside := sorted({*given, *sampling} - {*told, *PROMPTS, "id", "tenant", "sampling"}):
        told["also_set"] = beside
    return told


def _told(chosen: Chosen, *, body: bool) -> str:
    fields = _all(chosen, body=False)
    del fields["sent_ms"], fields["put_aside_ms"]
    lines = [f"{chosen.letter.source}  {chosen.letter.reason}"]
    for name, value in fields.items():
        if name in {"place", "reason"} or value in (None, [], ""):
            continue
        lines += [f"  {name:<{NAME_WIDTH}}{_shown(value)}"]
    text = "\n".join(lines)
    if not body:
        hidden = counted(chosen.letter.size, "byte")
        return printable(f"{text}\n  {'body':<{NAME_WIDTH}}{hidden}, not shown: --body shows it")
    for name, value in chosen.letter.headers:
        told = "-" if value is None else value.decode(errors="backslashreplace")
        text += f"\n  header      {name}: {told}"
    return printable(f"{text}\n\n{_text_of(chosen.letter)}")


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_shown(each)}" for name, each in value.items())
    if isinstance(value, list):
        return "; ".join(map(_shown, value))
    return str(value)


def _text_of(letter: Letter) -> str:
    """Return a value as it can be read: msgpack as JSON, what is neither with its bytes escaped."""
    value = letter.value or b""
    if not is_json(value) and letter.cut_from is None and not letter.raw:
        with contextlib.suppress(DecodeError):
            return json.dumps(unpack_map(value, limits.MAX_REQUEST_BYTES), ensure_ascii=False)
    return value.decode(errors="backslashreplace")
