"""Who may ask, how much, and what they see: keys, limits, models, probes, CORS."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from aril.gateway.failures import Refusal
from aril.gateway.keys import Caller, Keys, hash_of
from aril.gateway.limits import Limits
from aril.memory import MemoryBroker
from aril.schemas import decode_request, encode_reply, reply_topic
from aril.signer import Signer
from tests.support.asgi import parse_events
from tests.support.gateway_site import CHAT_PATH, Gateway, Worker, end, piece

if TYPE_CHECKING:
    from pathlib import Path

CHAT: dict[str, Any] = {"model": "aril", "messages": [{"role": "user", "content": "hi there"}]}
OPEN_PATHS = {"/health", "/readyz", "/livez", "/metrics", "/", "/page/{name}"}


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """Write keys `a` (acme), `slow` (acme, with limits) and `z` (zeta)."""
    path = tmp_path / "keys.toml"
    path.write_text(
        "\n".join(
            f'[[keys]]\nname = "{name}"\ntenant = "{tenant}"\nsha256 = "{hash_of(name)}"\n{more}'
            for name, tenant, more in (
                ("a", "acme", ""),
                ("slow", "acme", "requests_per_second = 2\nstreams = 2\n"),
                ("z", "zeta", ""),
            )
        )
    )
    return path


def as_key(key: str) -> dict[str, str]:
    """Return the header."""
    return {"authorization": f"Bearer {key}"}


async def test_every_other_route_wants_a_key(broker: MemoryBroker, keys: Path) -> None:
    """Whoever has none, or a wrong one, is told 401 by each route but the probes'."""
    async with Gateway(broker, gateway_keys=keys).running() as gateway:
        asked = 0
        for route in gateway.app.routes:
            path = route.path.replace("{id:path}", "x").replace("{id}", "x")  # type: ignore[attr-defined]
            if route.path in OPEN_PATHS:  # type: ignore[attr-defined]
                continue
            for method in route.methods - {"HEAD"}:  # type: ignore[attr-defined]
                for headers in ({}, as_key("wrong"), {"authorization": "a"}, as_key("")):
                    answer = await gateway.call(method, path, CHAT, **headers)
                    assert answer.status == 401, (method, path, headers)
                    assert answer.answer_headers["www-authenticate"] == "Bearer"
                    error = (await answer.json())["error"]
                    assert error["code"] == "invalid_api_key"
                asked += 1
        assert asked >= 8
        assert broker.jobs.empty()
        assert (await gateway.call("GET", "/v1/models", **as_key("a"))).status == 200


async def test_a_gateway_without_keys_answers_to_no_foreign_name(
    broker: MemoryBroker, keys: Path
) -> None:
    """A browser would take such a page for the gateway's own; where keys are asked for, let it."""
    evil = {"host": "evil.example:8000"}
    async with Gateway(broker, gateway_hosts="x.example, AI.Example.org.").running() as gateway:
        answer = await gateway.call("GET", "/v1/models", **evil)
        assert (
            answer.status,
            "ARIL_GATEWAY_HOSTS" in (await answer.json())["error"]["message"],
        ) == (
            421,
            True,
        )
        assert (await gateway.call("GET", "/v1/models", host="ai.example.org")).status == 200
    async with Gateway(broker, gateway_keys=keys).running() as gateway:
        assert (await gateway.call("GET", "/v1/models", **evil | as_key("a"))).status == 200


async def test_a_tenant_reads_its_own_answers(keys: Path) -> None:
    """Another's id leads into one's own topic, where the answer is not."""
    broker = MemoryBroker(topics=[reply_topic("replies.", each) for each in ("acme", "zeta")])
    settings: dict[str, Any] = {"gateway_keys": keys, "gateway_wait_seconds": 0.2}
    async with Gateway(broker, **settings).running() as gateway:
        exchange = gateway.opened(CHAT, **as_key("a"))
        async with exchange:
            request = decode_request((await asyncio.wait_for(broker.jobs.get(), 5))[1])
            for record in (piece(request.id, 0, "secret"), end(request.id, 1)):
                broker.append(
                    0,
                    request.id.encode(),
                    encode_reply(record),
                    topic=reply_topic("replies.", "acme"),
                )
            body = await exchange.json()
        path = f"{CHAT_PATH}/{body['id']}"
        assert (await gateway.call("GET", path, **as_key("a"))).status == 200
        other = await gateway.call("GET", path, **as_key("z"))
        assert other.status == 404
        assert b"secret" not in b"".join(other.sent)


def test_requests_a_second() -> None:
    """A second's requests at once, then at the key's rate; when to come again is told."""
    now = 0.0
    limits = Limits(clock=lambda: now)
    caller = Caller(name="x", tenant="acme", sha256="1" * 64, requests_per_second=2)
    other = caller.model_copy(update={"sha256": "2" * 64})
    for _ in range(2):
        limits.request(caller)
    with pytest.raises(Refusal) as refused:
        limits.request(caller)
    assert refused.value.retry_after_ms == 501
    assert refused.value.limit == 2
    limits.request(other)
    now = 0.5
    limits.request(caller)
    with pytest.raises(Refusal):
        limits.request(caller)
    now = 100.0
    for _ in range(2):
        limits.request(caller)
    with pytest.raises(Refusal):
        limits.request(caller)


def test_less_than_one_request_a_second() -> None:
    """A slow key has one request to begin with."""
    limits = Limits(clock=lambda: 0.0)
    caller = Caller(name="x", tenant="acme", requests_per_second=0.1)
    limits.request(caller)
    with pytest.raises(Refusal) as refused:
        limits.request(caller)
    assert refused.value.retry_after_ms is not None
    assert 10_000 <= refused.value.retry_after_ms <= 10_001


async def test_limits_of_a_key(broker: MemoryBroker, keys: Path, worker: Worker) -> None:
    """429 as OpenAI's clients know it, counted by choice; another key of the tenant has its own."""
    async with Gateway(broker, gateway_keys=keys).running() as gateway:
        gateway.site.limits = Limits(clock=lambda: 0.0)
        async with gateway.opened(CHAT | {"n": 2}, **as_key("slow")):
            await worker.job()
            await worker.job()
            answer = await gateway.call("POST", CHAT_PATH, CHAT, **as_key("slow"))
            error = (await answer.json())["error"]
            assert (answer.status, error["limit"], error["given"]) == (429, 2, 3)
            assert answer.answer_headers["retry-after"] == "1"
            assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
            assert error["retryable"] is True
            rate = await gateway.call("GET", "/v1/models", **as_key("slow"))
            error = (await rate.json())["error"]
            assert (rate.status, error["limit"]) == (429, 2)
            assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
            told = rate.answer_headers
            assert (told["retry-after-ms"], told["retry-after"]) == ("501", "1")
            assert (error["retry_after_ms"], told["x-should-retry"]) == (501, "true")
            async with gateway.opened(CHAT, **as_key("a")):
                await worker.job()
        gateway.site.limits = Limits()
        async with gateway.opened(CHAT | {"n": 2}, **as_key("slow")):  # its streams are free again
            for _ in range(5):
                await worker.take()


async def test_what_is_left_is_told(broker: MemoryBroker, keys: Path) -> None:
    """By OpenAI's headers, on each response to a key that has a rate, and on no other's."""
    async with Gateway(broker, gateway_keys=keys).running() as gateway:
        now = 0.0
        gateway.site.limits = Limits(clock=lambda: now)

        async def left(key: str) -> tuple[str | None, ...]:
            told = (await gateway.call("GET", "/v1/models", **as_key(key))).answer_headers
            names = ("limit", "remaining", "reset")
            return tuple(told.get(f"x-ratelimit-{name}-requests") for name in names)

        assert await left("slow") == ("2", "1", "500ms")
        assert await left("slow") == ("2", "0", "1s")
        assert await left("slow") == ("2", "0", "1s")  # refused
        now = 0.75
        assert await left("slow") == ("2", "0", "750ms")
        assert await left("a") == (None, None, None)


@pytest.mark.parametrize(
    ("rate", "told"), [(0.1, "10s"), (0.01, "1m40s"), (0.0002, "1h23m20s"), (900.0, "2ms")]
)
def test_when_all_is_left_again(rate: float, told: str) -> None:
    """As OpenAI writes a duration, never too short."""
    limits = Limits(clock=lambda: 0.0)
    caller = Caller(name="x", tenant="acme", requests_per_second=rate)
    limits.request(caller)
    assert limits.headers(caller)["x-ratelimit-reset-requests"] == told


async def test_too_many_answers(broker: MemoryBroker, worker: Worker) -> None:
    """A gateway reads so many at the same time, whoever's; others are asked to come again."""
    async with Gateway(broker, gateway_streams=2).running() as gateway:
        async with gateway.opened(CHAT | {"n": 2}):
            await worker.job()
            answer = await gateway.call("POST", CHAT_PATH, CHAT)
            assert (answer.status, answer.answer_headers["x-should-retry"]) == (503, "true")
            assert b"aril_gateway_open_answers 2.0" in gateway.site.metrics.page("")[0]
        assert gateway.site.idle.is_set()
        async with gateway.opened(CHAT):
            assert gateway.site.open <= 2


async def test_what_never_fits(broker: MemoryBroker, keys: Path) -> None:
    """More answers than may ever be read at the same time: nobody is sent to come again."""
    for settings, key in (({"gateway_keys": keys}, as_key("slow")), ({"gateway_streams": 2}, {})):
        async with Gateway(broker, **settings).running() as gateway:
            answer = await gateway.call("POST", CHAT_PATH, CHAT | {"n": 3}, **key)
            error = (await answer.json())["error"]
            assert (answer.status, error["code"]) == (400, "limit_exceeded")
            assert (error["limit"], error["given"], error["retryable"]) == (2, 3, False)
            assert answer.answer_headers["x-should-retry"] == "false"
    assert broker.jobs.empty()


async def test_models(broker: MemoryBroker, keys: Path, tmp_path: Path) -> None:
    """The backbone by both names, the tenant's adapters and the shared ones; nobody else's."""
    store = tmp_path / "store"
    for folder in ("acme/terse", "acme/both", "zeta/secret", "shared/house", "shared/both"):
        (store / folder).mkdir(parents=True)
        (store / folder / "adapter_config.json").write_text("{}")
    (store / "acme" / "empty").mkdir()
    (store / "acme" / "Not-A-Name").mkdir()
    (store / "acme" / "broken").symlink_to("nowhere")
    settings: dict[str, Any] = {
        "gateway_keys": keys,
        "gateway_adapters": store,
        "gateway_model": "org/tiny",
    }
    async with Gateway(broker, **settings).running() as gateway:
        body = await (await gateway.call("GET", "/v1/models", **as_key("a"))).json()
        owners = {each["id"]: each["owned_by"] for each in body["data"]}
        assert owners == {
            "aril": "aril",
            "org/tiny": "aril",
            "both": "acme",
            "terse": "acme",
            "house": "shared",
        }
        assert {each.get("parent") for each in body["data"][2:]} == {"org/tiny"}
        one = await gateway.call("GET", "/v1/models/org/tiny", **as_key("a"))
        assert (await one.json())["id"] == "org/tiny"
        for name in ("secret", "..%2fzeta%2fsecret", "../zeta/secret", "empty"):
            other = await gateway.call("GET", f"/v1/models/{name}", **as_key("a"))
            assert (other.status, (await other.json())["error"]["code"]) == (404, "unknown_adapter")


async def test_models_without_a_store(broker: MemoryBroker, tmp_path: Path) -> None:
    """The backbone alone; and a store that is not there names nothing."""
    for more in ({}, {"gateway_adapters": tmp_path / "none"}):
        async with Gateway(broker, **more).running() as gateway:  # type: ignore[arg-type]
            body = await (await gateway.call("GET", "/v1/models")).json()
            assert [each["id"] for each in body["data"]] == ["aril"]


async def test_probes(gateway: Gateway) -> None:
    """Ready once the brokers have answered, not in a drain; alive all along; no request then."""
    for connected, draining, status in ((0, 0, 503), (1, 0, 200), (1, 1, 503)):
        for flag, event in ((connected, gateway.site.connected), (draining, gateway.site.draining)):
            event.set() if flag else event.clear()
        for path in ("/health", "/readyz"):
            assert (await gateway.call("GET", path)).status == status
        assert (await gateway.call("GET", "/livez")).status == 200
        page = b"".join((await gateway.call("GET", "/metrics")).sent)
        assert f"aril_gateway_ready {float(status == 200)}".encode() in page
        if status == 503:
            answer = await gateway.call("POST", CHAT_PATH, CHAT | {"stream": True})
            assert answer.status == 503
            assert answer.answer_headers["connection"] == "close"


async def test_the_end_of_a_drain(gateway: Gateway, worker: Worker) -> None:
    """Who was given an id goes on elsewhere and its job runs on; who was not has it cancelled."""
    async with (
        gateway.opened(CHAT | {"stream": True}) as told,
        gateway.opened(CHAT | {"stream": True}) as waiting,
        gateway.opened(CHAT) as whole,
    ):
        jobs = [(await worker.job()).id for _ in range(3)]
        worker.tell(piece(jobs[0], 0, "one"))
        await told.begun()
        gateway.site.draining.set()
        gateway.site.end()
        for exchange in (told, waiting, whole):
            await exchange.whole()
    assert parse_events(b"".join(told.sent))[-1].json["error"]["code"] == "unavailable"
    assert (waiting.status, whole.status) == (503, 503)
    for _ in range(2):
        await worker.take()
    assert worker.cancelled == set(jobs[1:])


async def test_metrics_of_answers(gateway: Gateway, worker: Worker) -> None:
    """How each began and ended, its tokens, and what it had to wait."""
    async with gateway.opened(CHAT | {"stream": True}) as exchange:
        job = (await worker.job()).id
        worker.tell(piece(job, 0, "a", ids=2), piece(job, 2, "b"), end(job, 3))
        await exchange.whole()
    last = str(parse_events(b"".join(exchange.sent))[1].id)
    await gateway.call("POST", CHAT_PATH, CHAT | {"stream": True}, last_event_id=last)
    async with gateway.opened(CHAT):
        await worker.job()
    page = gateway.site.metrics.page("")[0].decode()
    for line in (
        'aril_gateway_answers_total{begun="new",ended="done"} 1.0',
        'aril_gateway_answers_total{begun="resumed",ended="done"} 1.0',
        'aril_gateway_answers_total{begun="new",ended="left"} 1.0',
        "aril_gateway_tokens_total 6.0",
        "aril_gateway_first_token_seconds_count 1.0",
        "aril_gateway_token_seconds_count 1.0",
        'aril_gateway_requests_total{method="POST",route="/v1/chat/completions",status="499"} 1.0',
    ):
        assert line in page, page


async def test_cors(broker: MemoryBroker) -> None:
    """Pages of the origins that are named may ask, and read the ids; no other's."""
    async with Gateway(
        broker, gateway_cors="https://a.example, https://B.example/"
    ).running() as it:
        asked = {"origin": "https://b.example", "access_control_request_method": "POST"}
        answer = await it.call("OPTIONS", CHAT_PATH, **asked)
        assert answer.answer_headers["access-control-allow-origin"] == "https://b.example"
        other = await it.call("OPTIONS", CHAT_PATH, **(asked | {"origin": "https://c.example"}))
        assert "access-control-allow-origin" not in other.answer_headers


async def test_pages_can_read_what_nobody_expected(
    broker: MemoryBroker, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault of ours says as much of origins and limits as any other answer."""
    async with Gateway(broker, gateway_keys=keys, gateway_cors="https://a.example").running() as it:
        monkeypatch.setattr(it.site, "client", lambda _: 1 / 0)
        asked = {"origin": "https://a.example"} | as_key("slow")
        answer = await it.call("POST", CHAT_PATH, CHAT, **asked)
        assert answer.status == 500
        assert answer.answer_headers["access-control-allow-origin"] == "https://a.example"
        assert answer.answer_headers["x-ratelimit-limit-requests"] == "2"


async def test_a_slash_too_many_leads_nowhere(gateway: Gateway) -> None:
    """A redirect would name http, and the key would be sent in the clear from behind TLS."""
    for method, path in (("POST", CHAT_PATH), ("GET", "/v1/models"), ("GET", "/health")):
        answer = await gateway.call(method, path + "/", CHAT)
        assert answer.status == 404
        assert "location" not in answer.answer_headers
        assert (await answer.json())["error"]["type"] == "invalid_request_error"


async def test_who_leaves_while_it_asks(gateway: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    """In the middle of its body: that is nobody's fault, and counted as leaving."""
    exchange = gateway.opened(CHAT)
    exchange.chunk = exchange.leaves_at = 10
    async with exchange:
        await exchange.whole()
    assert exchange.status == 499
    assert not caplog.records
    page = gateway.site.metrics.page("")[0].decode()
    assert 'method="POST",route="/v1/chat/completions",status="499"} 1.0' in page


async def test_a_tenant_that_cannot_sign(
    broker: MemoryBroker, keys: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One that came to the file of keys later: it is told apart from what passes, the log why."""
    Signer.new().save(tmp_path / "acme.pem")
    async with Gateway(broker, gateway_signers=tmp_path).running() as gateway:
        gateway.site.keys = Keys(keys)
        answer = await gateway.call("POST", CHAT_PATH, CHAT, **as_key("z"))
        assert (answer.status, answer.answer_headers["x-should-retry"]) == (500, "false")
        assert [each.message for each in caplog.records] == ["tenant_cannot_sign"]


async def test_what_nobody_expected(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A fault of ours is told as that, its words are not; the log has kind and place."""
    monkeypatch.setattr(gateway.site, "client", lambda _: 1 / 0)
    async with gateway.opened(CHAT) as exchange:
        await exchange.whole()
    assert exchange.status == 500
    error = (await exchange.json())["error"]
    assert (error["code"], error["message"]) == ("internal", "a fault of the service")
    assert [each.message for each in caplog.records] == ["request_failed"]
