"""Adapters' own chat templates: transformers' text, and bounds that no template passes."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from transformers.utils.chat_template_utils import render_jinja_template

from aril.schemas import ErrorCode, Job, JobError, Message
from aril.schemas.limits import MAX_PROMPT_CHARS
from aril.worker.adapters import AdapterWeights
from aril.worker.adapters.chat_template import ChatTemplate
from aril.worker.batching.templates import TemplateRenderer
from tests.support.tiny import CHAT_TEMPLATE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

# One process for all tests: it takes a second to start.
pytestmark = pytest.mark.asyncio(loop_scope="module")

HI = (Message(role="system", content="Be brief."), Message(role="user", content="hi \U0001f34f"))
TOOL = {"type": "function", "function": {"name": "look", "parameters": {}}}


def adapter(text: str | None, digest: str = "d", **template: Any) -> AdapterWeights:
    """Return an adapter that has a chat template, and nothing else."""
    own = ChatTemplate(text, special={"eos_token": "<|end|>"}, **template)
    return AdapterWeights(name="own", digest=digest, rank=1, modules={}, template=own)


def job(**fields: Any) -> Job:
    """Return a job with messages."""
    return Job(id="a", tenant="acme", **({"messages": HI} | fields))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def renderer() -> AsyncIterator[TemplateRenderer]:
    """Return a renderer that gives each template a second."""
    made = TemplateRenderer({"messages", "chat_template"}, cpu_seconds=1)
    yield made
    await made.ended()


async def refusal(renderer: TemplateRenderer, text: str, **fields: Any) -> JobError:
    """Return what the tenant is told."""
    with pytest.raises(JobError) as caught:
        await renderer.render(job(**fields), adapter(text, digest=text[:60]))
    return caught.value


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        (CHAT_TEMPLATE, {}),
        (
            "{{ messages | tojson }}{{ eos_token }}{{ tone }}",
            {"chat_template_kwargs": {"tone": "x"}},
        ),
        ("{% for m in messages %}{{ m.content }}{% endfor %}", {"continue_final_message": True}),
        ("{{ tools | tojson(indent=2) }}{{ messages[0].get('tool_calls') }}", {"tools": (TOOL,)}),
        ("{% generation %}a{% endgeneration %}{% if not add_generation_prompt %}b{% endif %}", {}),
    ],
)
async def test_the_text_is_transformers(
    renderer: TemplateRenderer, text: str, fields: dict[str, Any]
) -> None:
    """What a template gives there it gives here, with the same variables."""
    asked = job(**fields)
    found = await renderer.render(asked, adapter(text))
    (expected,), _ = render_jinja_template(
        [[{"role": turn.role, "content": turn.content} for turn in HI]],
        chat_template=text,
        tools=list(asked.tools) if asked.tools else None,
        add_generation_prompt=not asked.continue_final_message,
        continue_final_message=asked.continue_final_message,
        eos_token="<|end|>",  # noqa: S106  # a chat token, no password
        **asked.chat_template_kwargs,
    )
    assert found == expected


async def test_a_template_for_tools_is_for_jobs_with_tools(renderer: TemplateRenderer) -> None:
    """As transformers chooses; a folder with that one alone has none for others."""
    both = adapter("plain", tool_use="tools")
    assert await renderer.render(job(), both) == "plain"
    assert await renderer.render(job(tools=(TOOL,)), both) == "tools"
    with pytest.raises(JobError, match="for tools only"):
        await renderer.render(job(), adapter(None, tool_use="tools"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{{ raise_exception('no ' ~ messages[0].role ~ ' here') }}", "no system here"),
        ("{% for %}", "Expected an expression"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{{ ''.__class__.__mro__ }}", "'__class__' of 'str' object is unsafe"),
        ("{{ messages.append(1) }}", "'append' of 'list' object is unsafe"),
        ("{{ lipsum.__globals__['os'].system('id') }}", "unsafe"),
        ("{% include '/etc/passwd' %}", "no loader"),
    ],
)
async def test_its_own_words_are_told(renderer: TemplateRenderer, text: str, words: str) -> None:
    """What it raises, what it may not do, what it is not: `invalid_job`, in one short line."""
    error = await refusal(renderer, text)
    assert error.code is ErrorCode.INVALID_JOB
    assert words in error.message
    starts = renderer.starts
    assert await renderer.render(job(), adapter("fine")) == "fine"
    assert renderer.starts == starts  # none of it has ended the process


async def test_a_variable_that_is_not_for_jobs_is_refused(renderer: TemplateRenderer) -> None:
    """A job's own template would be one that nobody has looked at."""
    error = await refusal(renderer, "a", chat_template_kwargs={"chat_template": "b"})
    assert "chat_template is not for jobs to set" in error.message


async def test_an_effort_is_refused_by_a_template_without_it(renderer: TemplateRenderer) -> None:
    """An adapter's as the backbone's; one for tools may know it where the other does not."""
    asked = {"chat_template_kwargs": {"reasoning_effort": "low"}}
    error = await refusal(renderer, "a", **asked)
    assert "the chat template knows no reasoning_effort" in error.message
    both = adapter("plain", tool_use="{{ reasoning_effort }}")
    assert await renderer.render(job(tools=(TOOL,), **asked), both) == "low"
    with pytest.raises(JobError):
        await renderer.render(job(**asked), both)


HUGE = "{{ 'a' * 9999999999 }}"
LOOPS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (LOOPS, "seconds of a processor"),
        (HUGE, "bytes of memory"),
        pytest.param(  # one operation, which nothing within the process interrupts
            "{{ 9 ** (9 ** 9) }}", "seconds of a processor", marks=pytest.mark.slow
        ),
        pytest.param(
            "{% set n = namespace(x='a') %}{% for a in range(99) %}{% set n.x = n.x ~ n.x %}"
            "{% endfor %}",
            "bytes of memory",
            marks=pytest.mark.slow,
        ),
    ],
)
async def test_a_hostile_template_is_ended(
    renderer: TemplateRenderer, text: str, told: str
) -> None:
    """Its tenant is told the bound; the next one's is rendered, by another process."""
    error = await refusal(renderer, text)
    assert error.code is ErrorCode.INVALID_JOB
    assert told in error.message
    assert error.limit is not None
    starts = renderer.starts
    assert await renderer.render(job(), adapter("fine")) == "fine"
    assert renderer.starts == starts + 1


async def test_a_text_that_is_too_long_is_told_with_both_numbers(
    renderer: TemplateRenderer,
) -> None:
    """As the backbone's template is; the text itself stays in its process."""
    error = await refusal(renderer, f"{{{{ 'a' * {MAX_PROMPT_CHARS + 1} }}}}")
    assert (error.code, error.limit) == (ErrorCode.PROMPT_TOO_LONG, MAX_PROMPT_CHARS)
    assert error.given == MAX_PROMPT_CHARS + 1
    widest = await renderer.render(job(), adapter(f"{{{{ '\U0001f34f' * {MAX_PROMPT_CHARS} }}}}"))
    assert len(widest) == MAX_PROMPT_CHARS


async def test_one_that_is_ended_is_so_once_in_half_a_minute() -> None:
    """A thousand jobs of a hostile adapter cost as much as one; others do not wait for them."""
    now = 0.0
    renderer = TemplateRenderer(cpu_seconds=1, clock=lambda: now)
    try:
        first = await refusal(renderer, HUGE)
        again = await refusal(renderer, HUGE)
        assert (again.message, again.limit) == (first.message, first.limit)
        assert renderer.starts == 1
        now = 31.0
        await refusal(renderer, HUGE)
        assert renderer.starts == 2
    finally:
        await renderer.ended()


async def test_answers_do_not_get_mixed_up(renderer: TemplateRenderer) -> None:
    """Many at once, and some that give up in the middle: each gets its own text."""
    texts = [f"{{{{ messages[1].role }}}} {at}" for at in range(20)]
    tasks = [asyncio.create_task(renderer.render(job(), adapter(text))) for text in texts]
    await asyncio.sleep(0)
    for task in tasks[::3]:
        task.cancel()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    for at, answer in enumerate(found):
        if at % 3:
            assert answer == f"user {at}"
        else:
            assert isinstance(answer, asyncio.CancelledError)


async def test_its_process_knows_no_secret_and_ends_with_the_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A template that got out of its sandbox would find no password in its environment."""
    monkeypatch.setenv("ARIL_SASL_PASSWORD", "secret")
    renderer = TemplateRenderer()
    await renderer.render(job(), adapter("fine"))
    process = renderer._process
    assert process is not None
    assert b"secret" not in await asyncio.to_thread(Path(f"/proc/{process.pid}/environ").read_bytes)
    await renderer.ended()
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)
    with pytest.raises(JobError, match="leaving"):
        await renderer.render(job(), adapter("fine"))
