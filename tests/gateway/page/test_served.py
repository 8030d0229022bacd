"""The page of the gateway as it is served: its files, what they may load, whose a key is."""

from __future__ import annotations

import re
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import pytest
from starlette.testclient import TestClient

from aril.gateway import page
from aril.gateway.app import make_app
from aril.gateway.keys import hash_of
from aril.gateway.settings import GatewaySettings
from aril.gateway.site import Site

if TYPE_CHECKING:
    from aril.connection import Connection

ROOT: Final = Path(__file__).parents[3]
KEY: Final = "aril-test"
MARKUP: Final = (
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function|\.style\b"
)


def client_of(**settings: Any) -> TestClient:
    """Return who asks a gateway that has no queue."""
    site = Site(GatewaySettings(**settings), cast("Connection", None))
    return TestClient(make_app(site), base_url="http://127.0.0.1")


@pytest.fixture
def client() -> TestClient:
    """Return who asks a gateway of one tenant."""
    return client_of(gateway_tenant="acme")


@pytest.fixture
def keyed(tmp_path: Path) -> TestClient:
    """Return who asks a gateway that has one key."""
    file = tmp_path / "keys.toml"
    file.write_text(f'[[keys]]\nname = "web"\ntenant = "acme"\nsha256 = "{hash_of(KEY)}"\n')
    return client_of(gateway_keys=file)


class Tags(HTMLParser):
    """Every tag of a page with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note it."""
        self.found.append((tag, dict(attrs)))


def test_every_file_is_served_under_the_policy(keyed: TestClient) -> None:
    """Without a key, with its type and all headers; what is unchanged is not sent again."""
    for name, file in page.FILES.items():
        path = "/" if name == page.INDEX else f"/page/{name}"
        answer = keyed.get(path)
        assert (answer.status_code, answer.content) == (200, file.body)
        assert page.HEADERS.items() <= dict(answer.headers).items()
        again = keyed.get(path, headers={"if-none-match": f'W/"x", {answer.headers["etag"]}'})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["content-security-policy"] == page.POLICY
        other = keyed.get(path, headers={"if-none-match": '"x"'})
        assert other.status_code == 200
    assert keyed.head("/").status_code == 200


@pytest.mark.parametrize("path", ["/page/none.js", "/page/../page.py", "/page/%2e%2e/page.py"])
def test_nothing_else_is_served(client: TestClient, path: str) -> None:
    """Not even a file that stands beside it."""
    assert client.get(path).status_code == 404


def test_a_page_says_nothing_but_text_and_names_of_its_files() -> None:
    """The policy lets in neither code nor style that stands in the page: there is none."""
    index = page.FILES[page.INDEX].body.decode()
    loaded = set()
    for tag, attributes in Tags(index).found:
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        assert tag not in {"style", "base", "iframe", "object", "embed"}
        assert tag != "script" or attributes.get("src")
        loaded |= {value for name in ("src", "href") if (value := attributes.get(name))}
    assert {"page/chat.js", "page/chat.css", "page/icon.svg"} == loaded
    assert re.findall(r"<script[^>]*>[^<]", index) == []


def test_scripts_load_only_each_other_and_never_write_markup() -> None:
    """What a model says can only become text."""
    scripts = {name: file.body.decode() for name, file in page.FILES.items() if name[-3:] == ".js"}
    imported = {"chat.js"}
    for text in scripts.values():
        imported |= set(re.findall(r'^import .* from "\./(.+)";$', text, re.MULTILINE))
        assert re.findall(MARKUP, text) == []
        assert "localStorage" not in text
        assert "cookie" not in text
    assert imported == scripts.keys()


def test_nothing_comes_from_elsewhere() -> None:
    """No file names a host: but for a namespace, which nobody asks."""
    for name, file in page.FILES.items():
        urls = re.findall(r"(?:https?:)?//[\w.-]+\.\w+[^\s\"']*", file.body.decode())
        assert set(urls) <= {"http://www.w3.org/2000/svg"}, name


def test_every_element_that_a_script_asks_for_is_there() -> None:
    """By its id."""
    index = page.FILES[page.INDEX].body.decode()
    there = {attributes["id"] for _, attributes in Tags(index).found if "id" in attributes}
    scripts = "".join(f.body.decode() for name, f in page.FILES.items() if name.endswith(".js"))
    wanted = set(re.findall(r'\b(?:at|getElementById)\("([\w-]+)"\)', scripts))
    assert len(wanted) > 10
    assert wanted <= there


def test_every_field_has_a_name_that_is_read_out() -> None:
    """A label around it or for it, or one of its own."""
    text = page.FILES[page.INDEX].body.decode()
    tags = Tags(text).found
    labelled = {attributes.get("for") for tag, attributes in tags if tag == "label"}
    within = set(re.findall(r"<label[^>]*>[^<]+<(?:input|select|textarea) id=\"(\w+)\"", text))
    for tag, attributes in tags:
        if tag in {"input", "select", "textarea"}:
            name = attributes["id"]
            assert name in labelled | within or attributes.get("aria-label"), name


def test_whose_a_key_is(keyed: TestClient) -> None:
    """The tenant by its key; nobody without one."""
    assert keyed.get("/page/caller").status_code == 401
    wrong = keyed.get("/page/caller", headers={"authorization": "Bearer aril-no"})
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (401, "invalid_api_key")
    answer = keyed.get("/page/caller", headers={"authorization": f"Bearer {KEY}"})
    assert answer.json() == {"tenant": "acme", "name": "web", "keyless": False}
    assert answer.headers["cache-control"] == "no-store"


def test_a_gateway_of_one_tenant_asks_for_no_key(client: TestClient) -> None:
    """So the page does not, either."""
    assert client.get("/page/caller").json() == {"tenant": "acme", "name": "acme", "keyless": True}


def test_the_files_are_in_the_package() -> None:
    """Each one matches what the client's distribution takes along."""
    project = tomllib.loads((ROOT / "clients/python/pyproject.toml").read_text())
    folder = page.FOLDER.parent
    patterns = project["tool"]["setuptools"]["package-data"]["aril.gateway"]
    taken = {path for pattern in patterns for path in folder.glob(pattern)}
    assert {folder / "page" / name for name in page.FILES} <= taken
