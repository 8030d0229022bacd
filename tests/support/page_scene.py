"""A stub of a gateway in a process that can be killed, and the page in a browser before it."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from typing import TYPE_CHECKING, Any, Final

from aril.gateway.keys import hash_of
from tests.support.browser import Browser, free_port, until

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

ENTER: Final = "\ue007"
LAST: Final = "#turns > li:last-child .answer"


def counted(number: int) -> str:
    """Return what `count` answers."""
    return "".join(f"{each} " for each in range(number))


class Gateway:
    """A stub's process: the same port each time that it is started."""

    def __init__(self, folder: Path, *, keys: Mapping[str, str] = {}, delay: float = 0.05) -> None:
        """Prepare; `keys` are tenants by their keys, without any all who ask are `acme`."""
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/"
        who = ["--tenant", "acme"]
        if keys:
            file = folder / "keys.toml"
            entry = '[[keys]]\nname = "{}"\ntenant = "{}"\nsha256 = "{}"\n'
            file.write_text(
                "".join(entry.format(key, tenant, hash_of(key)) for key, tenant in keys.items())
            )
            who = ["--keys", str(file)]
        self._command = [sys.executable, "-m", "tests.support.stub_gateway", *who]
        self._command += ["--port", str(self.port), "--delay", str(delay)]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._process = subprocess.Popen(self._command)
        until(self._answers)

    def kill(self) -> None:
        """Kill it, as `kill -9`."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def asked(self) -> list[dict[str, Any]]:
        """Return what this process was asked: job, id of the last event, body."""
        with urllib.request.urlopen(f"{self.url}stub/asked") as answer:  # noqa: S310 - our own
            asked: list[dict[str, Any]] = json.load(answer)
            return asked

    def _answers(self) -> bool:
        try:
            self.asked()
        except OSError:
            return False
        return True


class Page:
    """The page in a browser, as one who uses it sees it."""

    def __init__(self, browser: Browser, gateway: Gateway) -> None:
        self.browser = browser
        self.gateway = gateway

    def open(self) -> None:
        """Load it and wait until something can be asked."""
        self.browser.go(self.gateway.url)
        until(lambda: self.browser.text("#who"))
        until(lambda: self.browser.run("return !document.querySelector('#model').disabled"))

    def ask(self, question: str) -> None:
        """Write a question and send it by the Enter key."""
        self.browser.write("#question", question + ENTER)

    @property
    def answer(self) -> str:
        """The text of the last answer."""
        return self.browser.text(f"{LAST} .text")

    @property
    def error(self) -> str:
        """What is said to have gone wrong with it."""
        return self.browser.text(f"{LAST} .error")

    @property
    def state(self) -> str:
        """Its state."""
        script = "return document.querySelector(arguments[0])?.dataset.state ?? ''"
        state: str = self.browser.run(script, LAST)
        return state

    def shows(self, text: str) -> None:
        """Wait until some text is in the last answer."""
        until(lambda: text in self.answer)

    def ends(self, state: str = "done") -> None:
        """Wait until the last answer has ended, and see how."""
        until(lambda: self.state not in {"", "running"})
        assert self.state == state, self.error

    def kept(self) -> dict[str, Any]:
        """Return the last answer as the tab's storage has it."""
        chat = json.loads(self.browser.run("return sessionStorage.getItem('aril.chat')"))
        answer: dict[str, Any] = chat["turns"][-1]["answer"]
        return answer
