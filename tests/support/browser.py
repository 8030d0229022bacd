"""A headless Chromium for tests, driven by chromedriver over WebDriver's own HTTP."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any, Final, Self

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType

PATIENCE: Final = 90.0  # seconds; machines that run tests are busy
ELEMENT: Final = "element-6066-11e4-a52e-4f735466cecf"  # WebDriver's name for a reference to one
FLAGS: Final = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def missing() -> str | None:
    """Return why there is no browser here, None if there is one."""
    names = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    return f"{' and '.join(names)}: not installed" if names else None


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Browser:
    """One window, in a profile of its own."""

    def __init__(self, folder: Path, *, size: tuple[int, int] = (1000, 800)) -> None:
        self._folder = folder
        self._size = size
        self._session = ""

    def __enter__(self) -> Self:
        """Start it."""
        port = free_port()
        self._url = f"http://127.0.0.1:{port}"
        log = f"--log-path={self._folder / 'chromedriver.log'}"
        self._driver = subprocess.Popen(["chromedriver", f"--port={port}", log])
        try:
            until(self._answers)
            self._session = self._open()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End it."""
        try:
            self._ask("DELETE", "")
        finally:
            self._stop()

    def go(self, url: str) -> None:
        """Open a page and wait until it is loaded."""
        self._ask("POST", "/url", url=url)

    def reload(self) -> None:
        """Load the page again."""
        self._ask("POST", "/refresh")

    def run(self, script: str, *arguments: object) -> Any:
        """Return what a function's body returns in the page; a promise is waited for."""
        return self._ask("POST", "/execute/sync", script=script, args=[*arguments])

    def click(self, selector: str) -> None:
        """Click on what a selector finds, once it can be seen."""
        until(lambda: self.sees(selector))
        self._ask("POST", f"/element/{self._find(selector)}/click")

    def write(self, selector: str, text: str) -> None:
        """Type into what a selector finds; U+E007 is the Enter key."""
        self._ask("POST", f"/element/{self._find(selector)}/value", text=text)

    def text(self, selector: str) -> str:
        """Return the text of the last element that a selector finds, seen or not; "" for none."""
        script = "return [...document.querySelectorAll(arguments[0])].at(-1)?.textContent ?? ''"
        found: str = self.run(script, selector)
        return found

    def sees(self, selector: str) -> bool:
        """Whether something that a selector finds is on the page and not hidden."""
        script = "return document.querySelector(arguments[0])?.checkVisibility() ?? false"
        seen: bool = self.run(script, selector)
        return seen

    def picture(self, path: Path) -> None:
        """Write a PNG of the window."""
        path.write_bytes(base64.b64decode(self._ask("GET", "/screenshot")))

    def devtools(self, command: str, **arguments: object) -> Any:
        """Send a command of the DevTools protocol."""
        return self._ask("POST", "/goog/cdp/execute", cmd=command, params=arguments)

    def console(self) -> list[str]:
        """Return what the console has said since the last call."""
        return [each["message"] for each in self._ask("POST", "/se/log", type="browser")]

    def _open(self) -> str:
        width, height = self._size
        profile = self._folder / "profile"
        options = {
            "binary": shutil.which("chromium"),
            "args": [*FLAGS, f"--user-data-dir={profile}", f"--window-size={width},{height}"],
        }
        always = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        opened = self._send("POST", "/session", {"capabilities": {"alwaysMatch": always}})
        session: str = opened["sessionId"]
        return session

    def _find(self, selector: str) -> str:
        found = self._ask("POST", "/element", using="css selector", value=selector)
        element: str = found[ELEMENT]
        return element

    def _ask(self, method: str, path: str, **body: object) -> Any:
        given = body if method == "POST" else None
        return self._send(method, f"/session/{self._session}{path}", given)

    def _send(self, method: str, path: str, body: object) -> Any:
        request = urllib.request.Request(  # noqa: S310 - our own driver
            self._url + path,
            None if body is None else json.dumps(body).encode(),
            {"content-type": "application/json"},
            method=method,
        )
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as response:  # noqa: S310
                return json.load(response)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{path}: {error.read().decode()[:500]}") from None

    def _answers(self) -> bool:
        try:
            ready: bool = self._send("GET", "/status", None)["ready"]
        except OSError:
            return False
        return ready

    def _stop(self) -> None:
        self._driver.terminate()
        self._driver.wait()


def until(holds: Callable[[], object]) -> None:
    """Wait until something holds; fail where it does not."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, "it did not come to hold"
        time.sleep(0.05)
