"""One browser, a gateway for each test, and the page of that gateway in the browser."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from tests.support.browser import Browser, missing
from tests.support.page_scene import Gateway, Page

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEYS: Final = {"aril-one": "acme", "aril-two": "blackbeard"}


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One browser for all; what a tab keeps is kept by port, and each gateway has its own."""
    if (why := missing()) is not None:
        pytest.skip(why)
    with Browser(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    """Run a gateway of one tenant."""
    yield from running(Gateway(tmp_path))


@pytest.fixture
def keyed(tmp_path: Path) -> Iterator[Gateway]:
    """Run a gateway that wants a key."""
    yield from running(Gateway(tmp_path, keys=KEYS))


def running(gateway: Gateway) -> Iterator[Gateway]:
    """Run a gateway while a test uses it."""
    gateway.start()
    yield gateway
    gateway.kill()


@pytest.fixture
def page(browser: Browser, gateway: Gateway) -> Page:
    """Open the page; it is ready to be asked, and nothing is in the console yet."""
    page = Page(browser, gateway)
    page.open()
    browser.console()
    return page
