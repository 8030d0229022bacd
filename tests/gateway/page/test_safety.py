"""The page in a real browser: keys stay where they belong, words stay words, all can use it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.support.browser import until
from tests.support.page_scene import LAST, Page, counted

if TYPE_CHECKING:
    from tests.support.browser import Browser
    from tests.support.page_scene import Gateway

pytestmark = pytest.mark.slow


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
