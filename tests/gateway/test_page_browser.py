"""The page in a real browser: answers that survive whatever cuts them, words that stay words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.support.browser import Browser, missing, until
from tests.support.page_scene import LAST, Gateway, Page

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.skipif(missing() is not None, reason=str(missing()))]

KEYS: Final = {"aril-one": "acme", "aril-two": "blackbeard"}


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One browser for all; what a tab keeps is kept by port, and each gateway has its own."""
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


def counted(number: int) -> str:
    """Return what `count` answers."""
    return "".join(f"{each} " for each in range(number))


def test_an_answer_and_who_gave_it(page: Page) -> None:
    """Its text, and by the last chunk: tenant, adapter and digest, backbone and digest, tokens."""
    page.ask("count 12")
    page.ends()
    assert page.answer == counted(12)
    facts = page.browser.text(f"{LAST} summary")
    for fact in ("acme", "terse@5eed5eed5eed", "stub-1B@ba5eba5eba5e", "12 tokens", "tokens/s"):
        assert fact in facts
    details = page.browser.text(f"{LAST} dl")
    for fact in ("5eed" * 16, "ba5e" * 16, page.kept()["key"], "7 read, 12 written"):
        assert fact in details
    page.ask("count 2")
    page.ends()
    *_, last = page.gateway.asked()
    said = [(each["role"], each["content"]) for each in last["body"]["messages"]]
    assert said == [("user", "count 12"), ("assistant", counted(12)), ("user", "count 2")]
    assert page.browser.console() == []


def test_reloads_in_mid_answer(page: Page) -> None:
    """Four of them: the answer is whole, nothing is in it twice, it was one job."""
    page.ask("count 60")
    for number in (5, 15, 25, 26):
        page.shows(f" {number} ")
        page.browser.reload()
    page.ends()
    assert page.answer == counted(60)
    asked = page.gateway.asked()
    assert len(asked) == 5
    assert asked[0]["last"] is None
    places = [int(each["last"].split(".")[2]) for each in asked[1:]]
    assert places == sorted(places)
    assert places[0] > 0
    assert len({(each["key"], str(each["body"])) for each in asked}) == 1
    page.browser.reload()
    page.ends()
    assert page.answer == counted(60)
    assert len(page.gateway.asked()) == 5


def test_what_is_kept_fits_the_place_that_is_kept(page: Page) -> None:
    """At every moment: so that nothing is lost or doubled even if the browser dies."""
    page.ask("count 40")
    seen = set()
    while page.state == "running":
        kept = page.kept()
        place = int(kept["at"].split(".")[2]) if kept["at"] else 0
        assert kept["text"] == counted(place)
        seen.add(place)
    assert len(seen) > 3


def test_a_gateway_that_is_killed(page: Page) -> None:
    """Another one that comes in its place goes on behind the last token that was shown."""
    page.ask("count 60")
    page.shows(" 9 ")
    page.gateway.kill()
    until(lambda: "Trying again" in page.browser.text(f"{LAST} .waits"))
    shown = page.answer
    assert counted(60).startswith(shown)
    page.gateway.start()
    page.ends()
    assert page.answer == counted(60)
    first = page.gateway.asked()[0]
    assert first["last"].split(".")[2] == str(shown.count(" "))
    assert page.browser.text(f"{LAST} .waits") == ""


def test_a_reload_while_no_gateway_is_there(page: Page, tmp_path: Path) -> None:
    """The page is open elsewhere, so to say: it is loaded when there is one, and reads on."""
    page.ask("count 50")
    page.shows(" 9 ")
    page.gateway.kill()
    page.browser.go((tmp_path / "none").as_uri())
    page.gateway.start()
    page.open()
    page.ends()
    assert page.answer == counted(50)


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("cut 23", counted(23)),  # connections that end after five tokens each
        ("tail", "0 1 2 the tail"),  # cut between the end's text and the end
        ("withdraw", "0 1 2 "),  # what was shown first is no part of it
        ("busy", counted(3)),  # 503 three times
        ("limit 23", counted(23)),  # 429 each second time, of a job that has begun
    ],
)
def test_what_goes_on_by_itself(page: Page, question: str, answer: str) -> None:
    """Under the same key each time."""
    page.ask(question)
    page.ends()
    assert page.answer == answer
    asked = page.gateway.asked()
    assert len(asked) > 1
    assert len({each["key"] for each in asked}) == 1


@pytest.mark.parametrize("question", ["count 500", "late"])
def test_stop(page: Page, question: str) -> None:
    """The service is told, before the first token too; what has come stays; one can go on."""
    page.ask(question)
    if question != "late":
        page.shows(" 5 ")
    page.browser.click("#stop")
    page.ends("stopped")
    assert page.answer.count(" ") < 400
    assert page.error == "Stopped."
    assert len(page.gateway.asked()) == 1
    page.ask("count 2")
    page.ends()


def test_a_refusal_in_words(page: Page) -> None:
    """With code, limit and what was given; asked again it is another job."""
    page.ask("refuse")
    page.ends("failed")
    for word in ("beyond a limit", "limit_exceeded", "Limit: 100.", "Given: 4000."):
        assert word in page.error
    page.browser.click(f"{LAST} .again")
    until(lambda: len(page.gateway.asked()) == 2)
    page.ends("failed")
    assert len({each["key"] for each in page.gateway.asked()}) == 2


@pytest.mark.parametrize(
    ("question", "words", "asked"),
    [("full", "It may go in 1 s. (overloaded)", 4), ("forget", "took back what it had said", 1)],
)
def test_what_does_not_go_on(page: Page, question: str, words: str, asked: int) -> None:
    """It is not tried for ever, and nothing stays that does not hold."""
    page.ask(question)
    page.ends("failed")
    assert words in page.error
    assert page.answer == ""
    assert len(page.gateway.asked()) == asked


def test_an_error_in_mid_answer(page: Page) -> None:
    """What has come stays, and why there is no more is said."""
    page.ask("break")
    page.ends("failed")
    assert page.answer == "0 1 2 "
    assert "the engine broke" in page.error
    assert "(internal)" in page.error


def test_keys(browser: Browser, keyed: Gateway) -> None:
    """A wrong one is told in words; the right one is in no URL and no lasting storage."""
    page = Page(browser, keyed)
    browser.go(keyed.url)
    until(lambda: browser.sees("#secret"))
    browser.write("#secret", "aril-wrong\ue007")
    until(lambda: "(invalid_api_key)" in browser.text("#key-error"))
    browser.write("#secret", "aril-one\ue007")
    until(lambda: browser.text("#who") == "acme")
    assert not browser.sees("#secret")
    page.ask("count 30")
    page.shows(" 5 ")
    browser.reload()
    page.ends()
    assert page.answer == counted(30)
    assert "aril-one" not in browser.run("return location.href + document.cookie")
    assert browser.run("return localStorage.length") == 0
    # What one tenant was told is not there for another.
    browser.click("#forget")
    assert page.answer == ""
    browser.write("#secret", "aril-two\ue007")
    until(lambda: browser.text("#who") == "blackbeard")
    assert "aril-one" not in str(browser.run("return Object.values(sessionStorage)"))


def test_a_key_that_ends_in_mid_answer(browser: Browser, keyed: Gateway) -> None:
    """Another one of its tenant reads on; one of another tenant begins anew."""
    page = Page(browser, keyed)
    for key, turns in (("aril-one", 1), ("aril-two", 0)):
        browser.go(keyed.url)
        browser.run("sessionStorage.clear(); sessionStorage.setItem('aril.key', 'aril-one')")
        page.open()
        page.ask("count 40")
        page.shows(" 5 ")
        browser.run("sessionStorage.setItem('aril.key', 'aril-old')")
        browser.reload()
        until(lambda: browser.sees("#secret"))
        browser.write("#secret", key + "\ue007")
        until(lambda: browser.text("#who"))
        assert browser.run("return document.querySelectorAll('#turns > li').length") == turns
        if turns:
            page.ends()
            assert page.answer == counted(40)


MARKUP: Final = (
    "<img src=x onerror=window.hurt=1><script>window.hurt=1</script>"
    " <a href=javascript:hurt=1>x</a> **b** </p></article> &lt;b&gt;"
)


def test_markup_stays_text(page: Page) -> None:
    """In questions, answers and names of adapters, and after a reload as well."""
    names = page.browser.run("return [...document.querySelectorAll('option')].map(o => o.value)")
    assert "<img src=x onerror=alert(1)>" in names
    page.browser.run(
        "const m = document.querySelector('#model'); m.value = arguments[0]", names[-1]
    )
    page.ask(f"echo {MARKUP}")
    page.ends()
    for _ in range(2):
        assert page.answer == MARKUP + " "
        assert page.browser.text(f"{LAST} h2") == names[-1]
        made = "return document.querySelectorAll('#turns img, #turns script, #turns a').length"
        assert page.browser.run(made) == 0
        assert page.browser.run("return window.hurt ?? null") is None
        assert page.browser.console() == []
        page.browser.reload()
        until(lambda: page.answer)


INTRUDERS: Final = {
    "script-src-elem": "import('http://127.0.0.1:9/x.js').catch(() => {})",
    "require-trusted-types-for": "document.body.lastElementChild.innerHTML = '<b>x</b>'",
    "img-src": "new Image().src = 'http://127.0.0.1:9/x.png'",
    "connect-src": "fetch('http://127.0.0.1:9/').catch(() => {})",
    "style-src-attr": "document.body.setAttribute('style', 'color: red')",
    "style-src-elem": "const s = document.createElement('style');"
    " s.textContent = 'p { color: red }'; document.head.append(s)",
    "frame-src": "const f = document.createElement('iframe');"
    " f.src = 'http://127.0.0.1:9/'; document.body.append(f)",
    "base-uri": "const b = document.createElement('base');"
    " b.href = 'http://127.0.0.1:9/'; document.head.append(b)",
    "form-action": "const f = document.createElement('form');"
    " f.action = 'http://127.0.0.1:9/'; document.body.append(f); f.submit()",
}


@pytest.mark.parametrize("directive", INTRUDERS)
def test_nothing_else_gets_in(page: Page, directive: str) -> None:
    """The browser says which rule of the policy has kept it out."""
    script = """
      const broken = new Promise(resolve => document.addEventListener(
        'securitypolicyviolation', event => resolve(event.effectiveDirective), { once: true }));
      setTimeout(() => { try { INTRUDER } catch {} });
      return Promise.race([broken, new Promise(resolve => setTimeout(resolve, 5000, 'let in'))]);
    """
    sent = script.replace("INTRUDER", INTRUDERS[directive])
    assert page.browser.run(sent) == directive


def test_no_room_to_keep_it(page: Page) -> None:
    """The answer comes all the same, and that a reload would end it is said."""
    fill = """
      for (let size = 2 ** 22; size >= 1; size /= 2)
        for (;;) try {
          sessionStorage.setItem('x' + Math.random(), 'x'.repeat(size));
        } catch { break }
    """
    page.browser.run(fill)
    page.ask("count 5")
    page.ends()
    assert page.answer == counted(5)
    assert "too long to outlive a reload" in page.browser.text("#notice")


def test_a_phone(page: Page) -> None:
    """Nothing is wider than the smallest one, whatever was said."""
    phone = {"width": 320, "height": 568, "deviceScaleFactor": 2, "mobile": True}
    page.browser.devtools("Emulation.setDeviceMetricsOverride", **phone)
    try:
        page.ask(f"echo {'w' * 300} {MARKUP}")
        page.ends()
        page.browser.click(f"{LAST} summary")
        page.browser.click("#options summary")
        wide = """
          const wide = [...document.querySelectorAll('body, body *')].filter(
            each => each.checkVisibility() && each.getBoundingClientRect().right > innerWidth + 1);
          return wide.map(each => each.outerHTML.slice(0, 80));
        """
        assert page.browser.run(wide) == []
    finally:
        page.browser.devtools("Emulation.clearDeviceMetricsOverride")


def test_all_that_can_be_used_has_a_name(page: Page) -> None:
    """For those who hear it; and how an answer ends is said aloud, token by token nothing is."""
    page.ask("count 3")
    page.ends()
    assert page.browser.text("#status") == "The answer is complete: 3 tokens."
    tree = page.browser.devtools("Accessibility.getFullAXTree")["nodes"]
    roles = {"button", "textbox", "combobox", "spinbutton", "list", "main", "DisclosureTriangle"}
    used = [each for each in tree if each.get("role", {}).get("value") in roles]
    assert len(used) > 5
    assert [each for each in used if not each["name"]["value"]] == []
    live = [each for each in tree if named(each, "live") not in {None, "off"}]
    assert {each["role"]["value"] for each in live} <= {"status", "alert"}


def named(node: dict[str, Any], name: str) -> object:
    """Return a property of a node of the accessibility tree."""
    properties = {each["name"]: each["value"].get("value") for each in node.get("properties", ())}
    return properties.get(name)


def test_events_come_whole_however_they_are_cut(page: Page) -> None:
    """Every split in two reads the same, one in mid-character or mid-line-end too."""
    script = """
      const [stream] = arguments;
      const { eventsOf } = await import('/page/sse.js');
      const bytes = new TextEncoder().encode(stream);
      const read = async (...parts) => {
        const events = [];
        const body = new ReadableStream({ start(to) {
          parts.forEach(each => to.enqueue(each)); to.close();
        } });
        for await (const event of eventsOf(body)) events.push([event.id ?? null, event.data]);
        return JSON.stringify(events);
      };
      const all = new Set();
      for (let at = 0; at <= bytes.length; at++) {
        all.add(await read(bytes.slice(0, at), bytes.slice(at)));
      }
      all.add(await read(...Array.from(bytes, each => Uint8Array.of(each))));
      return [...all].map(each => JSON.parse(each));
    """
    stream = (
        ": hello\n\n"
        "id: 1.2\r\ndata: größe 🙂\r\n\r\n"
        "data:no blank\ndata\ndata:  two\n\n"
        'event: x\rid\rdata: {"a":"b: c"}\r\r'
        "id: 7\n\n"  # no data, so no event
        "id: a\x00b\ndata: 1\n\n"
        "data: not whole\n"
    )
    expected = [
        ["1.2", "größe 🙂"],
        [None, "no blank\n\n two"],
        ["", '{"a":"b: c"}'],
        [None, "1"],
    ]
    script = f"return (async function () {{ {script} }})(...arguments)"
    assert page.browser.run(script, stream) == [expected]
