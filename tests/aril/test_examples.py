"""The client's examples run, on a broker in memory."""

from __future__ import annotations

import asyncio
import importlib.util
import io
import json
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest

from aril import BlockingClient, Client
from tests.support.fake_worker import FakeWorker, tokens
from tests.support.served_memory import ServedTransport, TailWorker

if TYPE_CHECKING:
    from types import ModuleType

    from aril.schemas import Job, ReplyRecord

FOLDER: Final = Path(__file__).parents[2] / "clients/python/examples"
LINES: Final = 60


def example(name: str) -> ModuleType:
    """Return an example as a module."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class History(FakeWorker):
    """Answers with all that was said; interrupts whoever says stop."""

    @staticmethod
    def _answer(job: Job) -> list[ReplyRecord]:
        said = "/".join(message.text or "" for message in job.messages or ())
        if said.endswith("stop"):
            os.kill(os.getpid(), signal.SIGINT)
            return [tokens(job.id, 0, "one")]
        if said.endswith("fail"):
            return FakeWorker._answer(job)
        return TailWorker._answer(job.model_copy(update={"messages": None, "prompt": said}))


def test_chat(capsys: pytest.CaptureFixture[str]) -> None:
    """Each question goes out with all before it; a failed one is forgotten, Ctrl-C ends one."""
    transport = ServedTransport(History)
    with BlockingClient("", "acme", transport=transport) as client:
        example("chat").chat(client, iter(["a b", "fail", "c", "stop"]))
        until = time.monotonic() + 10
        while not transport.worker.cancelled and time.monotonic() < until:
            time.sleep(0.01)
    first, failed, second, *_ = capsys.readouterr().out.split("\n")
    assert (first, second) == ("a b", "a b/a b/c")
    assert failed.startswith("[overloaded")
    assert len(transport.worker.cancelled) == 1


class Request:
    """One request to a WSGI application, checked by the standard library's validator."""

    def __init__(self, application: Any, prompt: str) -> None:
        self.status = ""
        environ: dict[str, Any] = {}
        setup_testing_defaults(environ)
        body = prompt.encode()
        environ |= {"REQUEST_METHOD": "POST", "CONTENT_LENGTH": str(len(body)), "QUERY_STRING": ""}
        environ["wsgi.input"] = io.BytesIO(body)
        self.body: Any = validator(application)(environ, self._start)

    def _start(self, status: str, _headers: object, _failure: object = None) -> Any:
        self.status = status
        return lambda _: None


def test_wsgi() -> None:
    """The answer comes in pieces; what fails before the first one has a status of its own."""
    transport = ServedTransport()
    with BlockingClient("", "acme", transport=transport) as client:
        application = example("wsgi").app(client)
        told = {}
        for prompt in ("one two three", "fail, please", ""):
            request = Request(application, prompt)
            told[prompt] = (request.status, [*request.body])
            request.body.close()
        assert told["one two three"] == ("200 OK", [b"one", b" two", b" three"])
        assert told["fail, please"][0] == "503 Service Unavailable"
        assert told[""][0] == "400 Bad Request"
        assert not transport.cancelled()
        transport.worker.pause = 0.02
        request = Request(application, "one two three four five six")
        assert next(iter(request.body)) == b"one"
        request.body.close()
        del request
        until = time.monotonic() + 10
        while not transport.worker.cancelled and time.monotonic() < until:
            time.sleep(0.01)
    assert len(transport.worker.cancelled) == 1


class Browser:
    """Asks an ASGI application as a browser's EventSource does."""

    def __init__(self, application: Any) -> None:
        self._application = application
        self.status = 0
        self.text = ""
        self.last_id: str | None = None
        self.began = asyncio.Event()

    async def get(self, query: str, *, leave_after: str | None = None) -> list[tuple[str, Any]]:
        """Return the events; with `leave_after` the connection is lost behind that text."""
        self.text = ""
        headers = [] if self.last_id is None else [(b"last-event-id", self.last_id.encode())]
        scope = {
            "type": "http",
            "method": "GET",
            "path": "/answer",
            "root_path": "",
            "query_string": query.encode(),
            "headers": headers,
        }
        gone = asyncio.Event()

        async def receive() -> dict[str, str]:
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(part: dict[str, Any]) -> None:
            self.status = part.get("status", self.status)
            self.text += part.get("body", b"").decode()
            if self.text:
                self.began.set()
            if leave_after is not None and leave_after in self.text:
                gone.set()
                await asyncio.sleep(0.05)

        await self._application(scope, receive, send)
        return [*self._events()]

    def _events(self) -> Any:
        for block in self.text.split("\n\n")[:-1]:
            fields = dict(line.split(": ", 1) for line in block.split("\n"))
            self.last_id = fields["id"]
            if "data" in fields:
                yield fields["event"], json.loads(fields["data"])


@pytest.fixture
def sse() -> ModuleType:
    """Return the example, where Starlette is there."""
    pytest.importorskip("starlette")
    return example("sse")


async def test_sse(sse: ModuleType) -> None:
    """A browser that loses its connection gets the rest when it is back, and nothing twice."""
    transport = ServedTransport()
    client = Client("", "acme", transport=transport)
    application = sse.app(client)
    async with application.router.lifespan_context(application):
        browser = Browser(application)
        transport.worker.pause = 0.01
        first = await browser.get("prompt=one%20two%20three%20four", leave_after="two")
        assert [kind for kind, _ in first] == ["tokens"] * len(first)
        rest = await browser.get("prompt=one%20two%20three%20four")
        assert rest[-1] == ("done", {"text": " four", "finish_reason": "stop"})
        assert "".join(data["text"] for _, data in first + rest) == "one two three four"
        assert not transport.cancelled()


async def test_sse_of_a_connection_that_nobody_misses(sse: ModuleType) -> None:
    """A browser is answered though its lost connection still seems to be read from."""
    transport = ServedTransport()
    application = sse.app(Client("", "acme", transport=transport))
    async with application.router.lifespan_context(application):
        lost, browser = Browser(application), Browser(application)
        transport.worker.pause = 0.05
        old = asyncio.create_task(lost.get("prompt=one%20two%20three%20four"))
        await lost.began.wait()
        browser.last_id = lost.text.split("\n")[0].removeprefix("id: ")
        assert "".join(data["text"] for _, data in await browser.get("")) == "one two three four"
        assert "done" not in [kind for kind, _ in await old]
        assert not transport.cancelled()


async def test_sse_of_what_fails(sse: ModuleType) -> None:
    """A job that fails is an event; a token that is none, and an empty prompt, are bad requests."""
    application = sse.app(Client("", "acme", transport=ServedTransport()))
    async with application.router.lifespan_context(application):
        browser = Browser(application)
        ((kind, data),) = await browser.get("prompt=fail")
        assert (kind, data["text"].startswith("overloaded")) == ("failed", True)
        for browser.last_id in (None, "nonsense"):
            await browser.get("prompt=")
            assert browser.status == 400


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.name)
def test_an_example_is_short(path: Path) -> None:
    """Without its first words it has at most 60 lines that are not empty."""
    _, _, code = path.read_text().split('"""', 2)
    assert len([line for line in code.splitlines() if line]) <= LINES
