"""Where the prompts of `aril send` come from, and how tokens are to be chosen."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from aril.arguments import UsageError
from aril.commands.forms import form_of
from aril.job_lines import FORMS, LINE_FIELDS, sampling_over, without_adapters
from aril.schemas import Sampling

if TYPE_CHECKING:
    import argparse

Asked = dict[str, Any]
"""The arguments of `Client.stream` for one job."""

STDIN: Final = "-"
LISTS: Final = ("stop", "stop_token_ids")
NO_SCALARS: Final = FORMS.union(LISTS)


SAMPLING: Final = {
    "max_tokens": "longest answer; left out, up to the end of the context",
    "min_tokens": "nothing ends the answer before so many",
    "temperature": "0 takes the most likely token, more is livelier",
    "top_p": "choose among the tokens that together have this probability",
    "top_k": "choose among this many; 0 is off",
    "min_p": "choose among tokens at least this likely, beside the likeliest",
    "repetition_penalty": "divides the logits of tokens that have occurred",
    "presence_penalty": "off the logit of a token that was generated",
    "frequency_penalty": "off the logit, each time it was generated",
    "seed": "the same seed gives the same answer; left out, one is drawn and told",
    "stop": "end before this text",
    "stop_token_ids": "end at this token",
    "ignore_eos": "go on where the model would end",
    "logprobs": "also give log-probabilities, and those of so many alternatives (with --json)",
    "prompt_logprobs": "the same of the prompt's tokens, at the answer's end (with --json)",
}


def one_line(error: ValidationError, *within: str) -> str:
    """Return the first thing that is wrong, without the value given; `within` is what was read."""
    first = error.errors(include_input=False, include_url=False)[0]
    place = ".".join(map(str, (*within, *first["loc"])))
    text = first["msg"][0].lower() + first["msg"][1:]
    return f"{place}: {text}" if place else text


def sampling_of(arguments: argparse.Namespace, command: str) -> Sampling:
    """Return what the flags say about sampling, and nothing else as set. Raises `UsageError`."""
    given = {
        name: value
        for name in Sampling.model_fields
        if (value := getattr(arguments, name, None)) is not None
    }
    scalars = {name: str(given[name]).lower() for name in given.keys() - NO_SCALARS}
    try:
        parsed = Sampling.model_validate_strings(scalars).model_dump(exclude_unset=True)
        lists: dict[str, Any] = {"stop": given["stop"]} if "stop" in given else {}
        if "stop_token_ids" in given:
            lists["stop_token_ids"] = [int(text) for text in given["stop_token_ids"]]
        return Sampling.model_validate(parsed | lists | form_of(arguments, command), extra="forbid")
    except ValidationError as error:
        raise UsageError(f"{command}: --{one_line(error).replace('_', '-', 1)}") from None
    except ValueError:
        raise UsageError(f"{command}: --stop-token-ids: a token id is a number") from None


def read_prompts(arguments: argparse.Namespace, sampling: Sampling) -> list[Asked]:
    """Return what to ask, one entry a job. Raises `UsageError`."""
    common: Asked = {"sampling": sampling, **adapters_of(arguments.adapter or [], "send")}
    if arguments.adapter_scale is not None:
        common["adapter_scale"] = arguments.adapter_scale
    if arguments.timeout is not None:
        common["timeout"] = arguments.timeout
    if arguments.jsonl:
        if arguments.prompts:
            raise UsageError("send: prompts come from --jsonl or from arguments, not from both")
        lines = enumerate(_read(arguments.jsonl).splitlines(), start=1)
        jobs = [
            _from_line(number, line, common, arguments) for number, line in lines if line.strip()
        ]
    else:
        jobs = [{**common, **_asked(text, arguments)} for text in _texts(arguments.prompts)]
    if not jobs:
        raise UsageError("send: nothing to ask")
    return jobs


def adapters_of(given: list[str], command: str) -> Asked:
    """Return one adapter, or a mixture: `name`, `name@digest`, each perhaps with `=weight`."""
    if not given:
        return {}
    if len(given) == 1 and "=" not in given[0]:
        return {"adapter": given[0]}
    mixed = []
    for text in given:
        name, _, weight = text.partition("=")
        try:
            mixed.append({"name": name, "weight": float(weight or 1)})
        except ValueError:
            raise UsageError(f"{command}: --adapter {text}: a weight is a number") from None
    return {"adapters": mixed}


def _texts(prompts: list[str]) -> list[str]:
    if not prompts and sys.stdin.isatty():
        raise UsageError("send: what to ask? give a PROMPT, pipe one in, or --jsonl FILE")
    return [_read(STDIN) if text == STDIN else text for text in prompts or [STDIN]]


def _read(source: str) -> str:
    try:
        data = sys.stdin.buffer.read() if source == STDIN else Path(source).read_bytes()
        return data.decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"send: {source}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"send: {source}: not UTF-8") from None


def _asked(text: str, arguments: argparse.Namespace) -> Asked:
    if arguments.raw:
        return {"prompt": text}
    messages = [{"role": "user", "content": text}]
    if arguments.system:
        messages.insert(0, {"role": "system", "content": arguments.system})
    return {"messages": messages}


def _from_line(number: int, line: str, common: Asked, arguments: argparse.Namespace) -> Asked:
    place = f"send: {arguments.jsonl}, line {number}"
    try:
        fields = json.loads(line)
    except ValueError as error:
        raise UsageError(f"{place}: not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise UsageError(f"{place}: not an object")
    if unknown := sorted(fields.keys() - LINE_FIELDS):
        raise UsageError(f"{place}: unknown field {unknown[0]!r}")
    common = without_adapters(common, fields)
    if "sampling" in fields:
        fields["sampling"] = _sampling_of_line(place, fields["sampling"], common["sampling"])
    if "id" in fields:
        fields["job_id"] = fields.pop("id")
    if isinstance(fields.get("prompt"), str):
        fields |= _asked(fields.pop("prompt"), arguments)
    return {**common, **fields}


def _sampling_of_line(place: str, given: Any, flags: Sampling) -> Sampling:
    """Return a line's sampling; what it does not say, the flags do."""
    if not isinstance(given, dict):
        raise UsageError(f"{place}: sampling: not an object")
    both = sampling_over(flags.model_dump(exclude_unset=True), given)
    try:
        return Sampling.model_validate(both, extra="forbid")
    except ValidationError as error:
        raise UsageError(f"{place}: {one_line(error, 'sampling')}") from None
