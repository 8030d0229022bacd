"""How `aril send` and the client ask for adapters, and how what answered is shown."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError

from aril.arguments import UsageError
from aril.commands.prompts import read_prompts
from aril.commands.show import JsonPrinter, described
from aril.memory import MemoryBroker
from aril.schemas import Activation, DoneEvent, Job, MixedAdapter, Sampling, decode_request
from tests.aril.test_client import connect
from tests.support.fake_worker import DIGEST, FakeWorker, done

if TYPE_CHECKING:
    from pathlib import Path

MIXED = (MixedAdapter("one", DIGEST, 0.5), MixedAdapter("two", DIGEST, -1.0))


def asked(*adapters: str, scale: float | None = None, jsonl: str | None = None) -> dict[str, Any]:
    """Return what the flags make of one prompt, all but the prompt and its sampling."""
    arguments = argparse.Namespace(
        adapter=list(adapters) or None,
        adapter_scale=scale,
        timeout=None,
        jsonl=jsonl,
        prompts=[] if jsonl else ["hi"],
        raw=True,
        system=None,
    )
    (job,) = read_prompts(arguments, Sampling())
    return {name: job[name] for name in job if name not in {"prompt", "sampling"}}


def test_flags_name_one_adapter_or_a_mixture() -> None:
    """One name is an adapter; several, or one with a weight, are added up."""
    assert asked() == {}
    assert asked("a", scale=0.5) == {"adapter": "a", "adapter_scale": 0.5}
    assert asked("a=0.5") == {"adapters": [{"name": "a", "weight": 0.5}]}
    mixed = [{"name": "a", "weight": 1.0}, {"name": f"b@{DIGEST}", "weight": -2.0}]
    assert asked("a", f"b@{DIGEST}=-2") == {"adapters": mixed}
    with pytest.raises(UsageError, match="a weight is a number"):
        asked("a=much")


def test_a_line_goes_before_the_flags(tmp_path: Path) -> None:
    """A line's adapters take the place of the flags' adapter and strength, else those hold."""
    file = tmp_path / "jobs.jsonl"
    file.write_text('{"prompt": "hi", "adapters": [{"name": "b"}]}')
    assert asked("a", scale=2.0, jsonl=str(file)) == {"adapters": [{"name": "b"}]}
    file.write_text('{"prompt": "hi", "adapter_scale": 0.5}')
    assert asked("a", scale=2.0, jsonl=str(file)) == {"adapter": "a", "adapter_scale": 0.5}


async def test_the_client_sends_a_mixture() -> None:
    """As maps, of which unknown fields are refused before anything is sent."""
    broker = MemoryBroker()
    async with connect(broker) as client:
        adapters: list[dict[str, Any]] = [{"name": "one", "weight": 0.5}, {"name": "two"}]
        stream = await client.stream("hi", adapters=adapters, adapter_scale=2).start()
        stream.detach()
        _, value = await broker.jobs.get()
        sent = decode_request(value)
        assert isinstance(sent, Job)
        assert sent.adapter_scale == 2
        assert [(each.name, each.weight) for each in sent.adapters or ()] == [
            ("one", 0.5),
            ("two", 1.0),
        ]
        with pytest.raises(ValidationError, match="wieght"):
            client.stream("hi", adapters=[{"name": "one", "wieght": 1}])


@pytest.mark.parametrize(
    ("changes", "start"),
    [
        ({"adapter": "one", "activation": Activation(3)}, 3),
        ({"adapter": "one", "activation": Activation(None)}, None),
        ({"adapter": "one"}, 0),
        ({"adapters": MIXED}, 0),
        ({}, None),
    ],
)
async def test_a_completion_says_from_where_its_adapter_worked(
    changes: dict[str, Any], start: int | None
) -> None:
    """An index in the prompt, 0 for one without an invocation, None where none worked."""
    broker = MemoryBroker()
    async with connect(broker) as client:
        stream = await client.stream("hi", job_id="j").start()
        FakeWorker.append_to_memory(broker, replace(done("j", 0), **changes))
        completion = await stream.result()
    assert completion.adapter_active_from == start
    assert completion.adapters == changes.get("adapters", ())


def event(**changes: Any) -> DoneEvent:
    """Return the end of an answer."""
    end = done("j", 0)
    plain = {
        name: getattr(end, name) for name in DoneEvent.__dataclass_fields__ if hasattr(end, name)
    }
    return DoneEvent(**plain | changes)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, "fake"),
        ({"adapter": "one", "digest": DIGEST}, "one@abababababab"),
        ({"adapters": MIXED}, "0.5 · one@abababababab + -1 · two@abababababab"),
        (
            {"adapter": "one", "digest": DIGEST, "activation": Activation(None)},
            "fake: the invocation of one@abababababab is not in the prompt",
        ),
    ],
)
def test_who_answered_is_described(changes: dict[str, Any], told: str) -> None:
    """Backbone, adapter, mixture, or an adapter that was not invoked."""
    assert described(event(**changes)) == told


def test_json_has_what_the_wire_has(capsys: pytest.CaptureFixture[str]) -> None:
    """Names and maps as in the terminal; what is not told there is not told here."""
    stream: Any = argparse.Namespace(job="j", token="t")  # noqa: S106 - a place in a log
    JsonPrinter().event(stream, event(adapters=MIXED))
    JsonPrinter().event(stream, event(adapter="one", activation=Activation(None)))
    JsonPrinter().event(stream, event())
    mixed, uninvoked, plain = map(json.loads, capsys.readouterr().out.splitlines())
    assert mixed["adapters"][1] == {"name": "two", "digest": DIGEST, "weight": -1.0}
    assert uninvoked["adapter_active_from"] is None
    assert not plain.keys() & {"adapters", "adapter_active_from", "activation"}
