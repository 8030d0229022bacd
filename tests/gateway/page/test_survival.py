"""The page in a real browser: answers that survive whatever cuts them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.browser import until
from tests.support.page_scene import LAST, counted
from tests.support.stub_gateway import BASE_DIGEST, DIGEST, SEED

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.page_scene import Page

pytestmark = pytest.mark.slow


def test_an_answer_and_who_gave_it(page: Page) -> None:
    """Its text, and by the last chunk: tenant, adapter and digest, backbone and digest, tokens."""
    page.ask("count 12")
    page.ends()
    assert page.answer == counted(12)
    facts = page.browser.text(f"{LAST} summary")
    for fact in ("acme", "terse@5eed5eed5eed", "stub-1B@ba5eba5eba5e", "12 tokens", "tokens/s"):
        assert fact in facts
    details = page.browser.text(f"{LAST} dl")
    for fact in (DIGEST, BASE_DIGEST, str(SEED), page.kept()["key"], "7 read, 12 written"):
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
    assert page.error == (
        "The question is beyond a limit: max_tokens: at most 100, not 4000."
        " Limit: 100. Given: 4000. (limit_exceeded)"
    )
    page.browser.click(f"{LAST} .again")
    until(lambda: len(page.gateway.asked()) == 2)
    page.ends("failed")
    assert len({each["key"] for each in page.gateway.asked()}) == 2


def test_an_answer_that_is_withdrawn(page: Page) -> None:
    """What was shown is no part of it: read by its id it is what holds, with all that is told."""
    page.ask("withdraw")
    page.ends()
    assert page.answer == "0 1 2 "
    assert str(SEED) in page.browser.text(f"{LAST} dl")
    assert len(page.gateway.asked()) == 1


def test_a_queue_that_is_full(page: Page) -> None:
    """The job has ended: another is asked for, some times, not for ever."""
    page.ask("full")
    page.ends("failed")
    assert page.error.startswith("The service has too much to do: too much (the same request")
    assert page.error.endswith(" Limit: 1. (overloaded)")
    asked = page.gateway.asked()
    assert len({each["key"] for each in asked}) == len(asked) == 4


def test_an_error_in_mid_answer(page: Page) -> None:
    """What has come stays, and why there is no more is said."""
    page.ask("break")
    page.ends("failed")
    assert page.answer == "0 1 2 "
    assert "the engine broke" in page.error
    assert "(internal)" in page.error


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
