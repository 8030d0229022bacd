"""A line of the input: what it asks for, and the ids that this is asked under.

A line is OpenAI's, with `custom_id`, `method`, `url` and `body`, or ours, as `aril send --jsonl`
has it; a file may mix them. What is wrong with the file (no JSON, no or the same custom_id twice)
is found before anything is asked; what is wrong with one request makes its answer an error.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel

from aril.batches.digests import BYTES, Digests, digest_of
from aril.job_lines import LINE_FIELDS, sampling_over, without_adapters
from aril.openai.errors import Refused
from aril.openai.jobs import arguments_of, judged
from aril.openai.requests import request_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from typing import BinaryIO

    from aril.openai.common import Asked
    from aril.openai.jobs import JobFields

MAX_LINE_BYTES: Final = 16_000_000
"""Of one line: a request may ask for many prompts, each of a megabyte at most."""
MAX_KEY_CHARS: Final = 512
ID_BYTES: Final = 16
MS: Final = 1_000
OF_OPENAI: Final = frozenset({"custom_id", "method", "url", "body"})
NOT_JSON: Final = "invalid_json_line"
TWICE: Final = "duplicate_custom_id"
UNFIT: Final = "invalid_request"
ELSEWHERE: Final = "url_mismatch"


class BadLine(ValueError):  # noqa: N818 - named for what happened
    """A line that makes the file unfit; the message is for its owner, the code for programs."""

    def __init__(
        self, number: int, message: str, *, code: str = UNFIT, param: str | None = None
    ) -> None:
        super().__init__(f"line {number}: {message}")
        self.number = number
        self.message = message
        self.code = code
        self.param = param


@dataclass(frozen=True, slots=True)
class Manner:
    """What is the same for all lines: defaults, in the contract's words, and what they mean."""

    defaults: Mapping[str, Any]
    bases: Collection[str] = ()
    raw: bool = False
    system: str | None = None
    tenant: str = ""

    @property
    def digest(self) -> bytes:
        """What stands for it in the ids: another manner asks for other answers."""
        told = [self.defaults, sorted(self.bases), self.raw, self.system, self.tenant]
        return blake2b(_canonical(told), digest_size=ID_BYTES).digest()


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the file. `key` is the id that its owner gave it; `digest` is ours, 32 digits."""

    number: int
    key: str | None
    fields: Mapping[str, Any]
    digest: str
    bytes: int = 0
    """Of its text."""

    @property
    def is_openai(self) -> bool:
        """Whether it is OpenAI's, and so is its answer."""
        return _is_openai(self.fields)

    @property
    def short(self) -> int:
        """The digest in 64 bits, as a member of `Digests`."""
        return short_of(self.digest)


@dataclass(frozen=True, slots=True)
class Question:
    """What a line asks for: jobs, or, where it cannot be asked, the refusal."""

    line: Line
    jobs: tuple[JobFields, ...] = ()
    asked: Asked | None = None
    refusal: Refused | None = None

    def job_id(self, name: str, at: int, attempt: int) -> str:
        """Return the id of one of its jobs, of the batch `name`; each attempt has its own.

        An identity ends once, so a job that ended in an error is asked again under another. Who
        starts anew walks along the same ids, past the ends that are there.
        """
        asked = blake2b(self.line.digest.encode(), digest_size=ID_BYTES)
        asked.update(_canonical(self.jobs[at]))
        choice = f".c{at}" if at else ""
        again = f".r{attempt}" if attempt else ""
        return f"{name}.{asked.hexdigest()}{choice}{again}"


def short_of(digest: str) -> int:
    """Return a line's digest in 64 bits, as a member of `Digests`."""
    return int(digest[: 2 * BYTES], 16) or 1


def read_lines(file: BinaryIO, manner: Manner) -> Iterator[Line | BadLine]:
    """Return the lines that are not blank, one after the other, and what makes the file unfit.

    A line is known by its text; one of ours without an id also by its place. Nothing comes behind
    a line that is too long.
    """
    reader, number = _Reader(manner), 0
    while text := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(text) > MAX_LINE_BYTES:
            yield BadLine(number, f"more than {MAX_LINE_BYTES} bytes")
            return
        text = (text.removeprefix(b"\xef\xbb\xbf") if number == 1 else text).strip()
        if not text:
            continue
        try:
            yield reader.line(number, text)
        except BadLine as error:
            yield error


class _Reader:
    """Reads line by line, and knows the ids that were there before."""

    def __init__(self, manner: Manner) -> None:
        self._common = manner.digest
        self._keys = Digests()

    def line(self, number: int, text: bytes) -> Line:
        """Return a line. Raises `BadLine`."""
        fields = _fields(number, text)
        key = _key(number, fields)
        if key is not None and not self._keys.add(
            digest_of(key.encode("utf-8", "backslashreplace"))
        ):
            raise BadLine(
                number, f"{key!r:.80} is the id of a line before", code=TWICE, param="custom_id"
            )
        place = number.to_bytes(BYTES, "big") if key is None else b""
        digest = blake2b(self._common + place + text, digest_size=ID_BYTES).hexdigest()
        return Line(number, key, fields, digest, len(text))


def _fields(number: int, text: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(text.decode())
    except UnicodeDecodeError:
        raise BadLine(number, "not UTF-8", code=NOT_JSON) from None
    except (ValueError, RecursionError) as error:
        what = getattr(error, "msg", "nested too deep, or a number too long")
        raise BadLine(number, f"not JSON: {what}", code=NOT_JSON) from None
    if not isinstance(fields, dict):
        raise BadLine(number, "not a JSON object", code=NOT_JSON)
    return fields


def _key(number: int, fields: Mapping[str, Any]) -> str | None:
    """Return the id that a line's owner gave it, if any. Raises `BadLine`, also of other fields."""
    openai = _is_openai(fields)
    name = "custom_id" if openai else "id"
    key = fields.get(name)
    fits = isinstance(key, str) and 0 < len(key) <= MAX_KEY_CHARS
    if not fits and (openai or key is not None):
        raise _bad_key(number, name)
    if unknown := sorted(fields.keys() - (OF_OPENAI if openai else LINE_FIELDS)):
        raise BadLine(number, f"unknown field {unknown[0]!r:.80}")
    if openai and fields.get("method", "POST") != "POST":
        raise BadLine(number, "method must be POST", param="method")
    return key


def _bad_key(number: int, name: str) -> BadLine:
    text = f"{name} must be a text of 1 to {MAX_KEY_CHARS} characters"
    return BadLine(number, text, param=name)


def misplaced(line: Line, endpoint: str) -> BadLine | None:
    """Return what is wrong with a line where all must be OpenAI's, for one endpoint."""
    if not line.is_openai:
        return _bad_key(line.number, "custom_id")
    if line.fields.get("url") != endpoint:
        return BadLine(line.number, f"url must be {endpoint}", code=ELSEWHERE, param="url")
    return None


def _is_openai(fields: Mapping[str, Any]) -> bool:
    return bool(fields.keys() & OF_OPENAI)


def question_of(line: Line, manner: Manner) -> Question:
    """Return what a line asks for, or why it cannot be asked."""
    try:
        if not line.is_openai:
            return Question(line, (_own_job(line.fields, manner),))
        url = line.fields.get("url")
        asked = request_of(
            url if isinstance(url, str) else "",
            line.fields.get("body"),
            bases=manner.bases,
            defaults=manner.defaults,
        )
    except Refused as refusal:
        return Question(line, refusal=refusal)
    except Exception as error:  # noqa: BLE001 - one line, whatever is in it, is not the whole file
        return Question(line, refusal=Refused(f"cannot be asked: {type(error).__name__}"))
    return Question(line, asked.jobs, asked)


def _own_job(line: Mapping[str, Any], manner: Manner) -> JobFields:
    fields = {name: value for name, value in line.items() if name != "id" and value is not None}
    said, own = fields.pop("sampling", {}), fields.pop("deadline", None)
    if not isinstance(said, dict):
        raise Refused("sampling: must be an object", param="sampling")
    if own is not None:
        if not isinstance(own, int | float) or isinstance(own, bool) or not abs(own) < 2**32:
            raise Refused("deadline: must be a number of seconds", param="deadline")
        fields["deadline_ms"] = int(own * MS)
    if isinstance(prompt := fields.get("prompt"), str) and not manner.raw:
        del fields["prompt"]
        system = [] if manner.system is None else [{"role": "system", "content": manner.system}]
        fields["messages"] = [*system, {"role": "user", "content": prompt}]
    sampling = sampling_over(manner.defaults.get("sampling") or {}, said)
    common = without_adapters(manner.defaults, fields)
    return arguments_of(judged(common | fields | {"sampling": sampling}))


def _canonical(value: Any) -> bytes:
    """Return one text for what is equal; what is only written otherwise may have another."""
    return json.dumps(value, default=_plain, separators=(",", ":")).encode()


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(exclude_defaults=True)
    raise TypeError(f"{type(value).__name__} in a job")
