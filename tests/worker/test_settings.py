"""Settings: where each value comes from, and that nothing wrong passes silently."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from aril.worker.settings import SettingsError, WorkerSettings, load_settings
from aril.worker.topics.contract import Contract
from aril.worker.topics.subscription import topic_pattern

if TYPE_CHECKING:
    from pathlib import Path


EACH_ITS_TOPIC = {"tenant_from": "topic"}

# As a kubelet makes them for a Service `aril` and another, `aril-metrics`.
SERVICE_LINKS = {
    "ARIL_SERVICE_HOST": "10.0.0.1",
    "ARIL_SERVICE_PORT": "8080",
    "ARIL_SERVICE_PORT_HTTP": "8080",
    "ARIL_PORT": "tcp://10.0.0.1:8080",
    "ARIL_PORT_8080_TCP": "tcp://10.0.0.1:8080",
    "ARIL_PORT_8080_TCP_PROTO": "tcp",
    "ARIL_PORT_8080_TCP_PORT": "8080",
    "ARIL_PORT_8080_TCP_ADDR": "10.0.0.1",
    "ARIL_METRICS_SERVICE_HOST": "fd00::1",
    "ARIL_METRICS_PORT": "udp://[fd00::1]:53",
}


def test_variables_of_a_kubernetes_service_are_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Service whose name begins with aril puts them into every pod; nobody has misspelt any."""
    for name, value in SERVICE_LINKS.items():
        monkeypatch.setenv(name, value)
    assert set(load_settings().origins.values()) == {"default"}


@pytest.mark.parametrize(
    "flags",
    [
        EACH_ITS_TOPIC | {"jobs_topic": "jobs.*"},  # jobs.dlq stands under it
        EACH_ITS_TOPIC | {"jobs_topic": "jobs.*", "dlq_topic": "dead"},
        EACH_ITS_TOPIC | {"jobs_topic": "replies.jobs.*"},
        EACH_ITS_TOPIC | {"jobs_topic": "*"},
        {"jobs_topic": "aril.jobs.in", "dlq_topic": "aril.jobs.dlq", "replies_prefix": "aril."},
    ],
)
def test_a_worker_never_reads_what_it_writes(flags: dict[str, str]) -> None:
    """Settings that are taken: neither dead letters nor any answer come back as jobs."""
    contract = Contract.of(load_settings(flags=flags).settings)
    pattern = topic_pattern(contract.jobs_topic, contract.dlq_topic)
    written = [contract.dlq_topic, *(contract.replies_prefix + each for each in ("acme", "dlq"))]
    for topic in written:
        assert not contract.is_jobs(topic)
        assert pattern is None or not pattern.match(topic)


def test_flags_beat_environment_beats_file_beats_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each source wins over the weaker ones, and every value knows its source."""
    config = tmp_path / "aril.toml"
    config.write_text('window_ms = 1\nmax_rows = 2\ngroup = "file"\n')
    monkeypatch.setenv("ARIL_WINDOW_MS", "3")
    monkeypatch.setenv("ARIL_MAX_ROWS", "4")
    loaded = load_settings(flags={"window_ms": "5", "slots": None}, config=config)
    settings = loaded.settings
    assert (settings.window_ms, settings.max_rows, settings.group) == (5, 4, "file")
    assert settings.slots == WorkerSettings.model_fields["slots"].default
    origins = [loaded.origins[name] for name in ("window_ms", "max_rows", "group", "slots")]
    assert origins == ["flag", "env", "file", "default"]


def test_the_file_may_be_named_by_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ARIL_CONFIG names the file where no flag does."""
    config = tmp_path / "aril.toml"
    config.write_text("slots = 3\n")
    monkeypatch.setenv("ARIL_CONFIG", str(config))
    assert load_settings().settings.slots == 3


@pytest.mark.parametrize(
    ("environ", "flags", "line"),
    [
        ({"ARIL_WINDW_MS": "1"}, {}, "ARIL_WINDW_MS: unknown setting, did you mean ARIL_WINDOW_MS"),
        ({"ARIL_XYZZY": "1"}, {}, "ARIL_XYZZY: unknown setting"),
        ({"ARIL_WINDOW_MS": "-3"}, {}, "ARIL_WINDOW_MS: input should be greater than or equal"),
        ({"ARIL_MAX_ROWS": "many"}, {}, "ARIL_MAX_ROWS: input should be a valid integer"),
        ({}, {"max_rows": "0"}, "--max-rows: input should be greater than or equal to 1"),
        ({}, {"http": "nowhere"}, "--http: must be host:port or off"),
        ({}, {"replies_prefix": "replies"}, "--replies-prefix: string should match pattern"),
        ({}, {"tenant_from": "topic"}, "tenant_from=topic needs a jobs_topic pattern"),
        ({}, {"jobs_topic": "jobs.*"}, "a jobs_topic pattern needs tenant_from=topic"),
        ({}, {"tenant_from": "signature"}, "tenant_from=signature needs tenant_keys"),
        ({"ARIL_TENANT_KEYS": "/keys"}, {}, "tenant_keys are not looked at with tenant_from=field"),
        (
            {},
            {"tenant_from": "signature", "tenant_keys": "/keys", "jobs_topic": "jobs.*"},
            "a jobs_topic pattern needs tenant_from=topic",
        ),
        ({"ARIL_TENANT_FROM": "sig"}, {}, "ARIL_TENANT_FROM: input should be 'field', 'topic' or"),
        ({"ARIL_SIGNATURE_AGE": "0"}, {}, "ARIL_SIGNATURE_AGE: input should be greater than 0"),
        ({}, {"dlq_topic": "jobs"}, "dlq_topic and jobs_topic are both jobs: each dead letter"),
        ({"ARIL_JOBS_TOPIC": "jobs.dlq"}, {}, "dlq_topic and jobs_topic are both jobs.dlq"),
        ({}, {"jobs_topic": "replies.jobs"}, "jobs_topic=replies.jobs takes in reply topics"),
        ({}, {"dlq_topic": "replies.dlq"}, "dlq_topic=replies.dlq takes in reply topics"),
        ({}, {"replies_prefix": "jobs."}, "dlq_topic=jobs.dlq takes in reply topics"),
        ({}, EACH_ITS_TOPIC | {"jobs_topic": "replies.*"}, "jobs_topic=replies.* takes in reply"),
        ({}, EACH_ITS_TOPIC | {"jobs_topic": "replies.a-*"}, "jobs_topic=replies.a-* takes in"),
        ({"ARIL_PORT": "8080"}, {}, "ARIL_PORT: unknown setting"),
        ({"ARIL_SERVICE_HOST": "kafka:9092"}, {}, "ARIL_SERVICE_HOST: unknown setting"),
        ({"ARIL_WINDOW_PORT_MS": "5"}, {}, "ARIL_WINDOW_PORT_MS: unknown setting"),
        ({}, {"max_step_tokens": 16, "max_rows": 17}, "max_step_tokens must be at least max_rows"),
        ({"ARIL_MAX_JOB_AGE": "inf"}, {}, "ARIL_MAX_JOB_AGE: input should be a finite number"),
        ({"ARIL_CLOCK_SLACK": "1e999"}, {}, "ARIL_CLOCK_SLACK: input should be a finite number"),
        ({"ARIL_WINDOW_MS": "nan"}, {}, "ARIL_WINDOW_MS: input should be a finite number"),
        ({"ARIL_KV_TOKENS": "63"}, {}, "ARIL_KV_TOKENS: input should be greater than or equal to"),
        ({"ARIL_KV_TOKENS": "much"}, {}, "ARIL_KV_TOKENS: input should be a valid integer"),
        ({"ARIL_PREFIX_SHARING": "everybody"}, {}, "ARIL_PREFIX_SHARING: must be tenant, all, or"),
        ({"ARIL_PREFIX_SHARING": "a,b;c"}, {}, "ARIL_PREFIX_SHARING: must be tenant, all, or"),
        ({"ARIL_PREFIX_SHARING": "a,B"}, {}, "ARIL_PREFIX_SHARING: must be tenant, all, or"),
        ({"ARIL_PREFIX_SHARING": "a,b;c,a"}, {}, "ARIL_PREFIX_SHARING: a is in two groups"),
        (
            {"ARIL_GROUP_PROTOCOL": "consumer"},
            {"assignor": "consolidate"},
            "assignor=consolidate and group_protocol=consumer: brokers assign there",
        ),
        (
            {"ARIL_SESSION_TIMEOUT_MS": "6000"},
            {"group_protocol": "consumer"},
            "session_timeout_ms is not looked at with group_protocol=consumer",
        ),
        ({"ARIL_SLOTS\n2": "8"}, {}, r"ARIL_SLOTS\n2: unknown setting"),
        ({f"ARIL_{'X' * 9_000}": "8"}, {}, "XXX…: unknown setting"),
    ],
)
def test_a_bad_setting_is_one_line_that_names_it(
    environ: dict[str, str], flags: dict[str, Any], line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message names the variable or flag as it was written, in one line."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load_settings(flags=flags)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("windw_ms = 1", "did you mean window_ms?"),
        ("= 1", "not TOML"),
        (None, "No such file"),
        ("slots = " + "[" * 5_000, "not TOML: nested too deep"),
        ("slots = " + "9" * 5_000, "not TOML"),
        ('"slots\\n2" = 1', r"slots\\n2: unknown setting"),
    ],
)
def test_a_bad_file_is_one_line_that_names_it(text: str | None, line: str, tmp_path: Path) -> None:
    """Unknown names, syntax errors and missing files are told with the file's name."""
    config = tmp_path / "aril.toml"
    if text is not None:
        config.write_text(text)
    with pytest.raises(SettingsError, match=line) as caught:
        load_settings(config=config)
    assert str(config) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_secrets_are_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """The password is in no row and no text form, and still reaches the broker's options."""
    monkeypatch.setenv("ARIL_SASL_USERNAME", "worker")
    monkeypatch.setenv("ARIL_SASL_PASSWORD", "hunter2")
    monkeypatch.setenv("ARIL_SECURITY_PROTOCOL", "SASL_PLAINTEXT")
    loaded = load_settings()
    assert ("sasl_password", "***", "env") in loaded.rows()
    assert "hunter2" not in repr(loaded) + str(loaded.settings) + str(loaded.rows())
    assert "hunter2" in loaded.settings.kafka_security().values()


def test_a_bad_secret_is_not_echoed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Error texts do not hold the value that was refused."""
    monkeypatch.setenv("ARIL_GROUP", "x" * 300)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert "xxx" not in str(caught.value)


def test_every_setting_says_what_it_is() -> None:
    """Help texts are made from the descriptions: none is missing, each is one sentence or more."""
    for name, field in WorkerSettings.model_fields.items():
        assert field.description, name
        assert field.description.endswith("."), name


@pytest.mark.parametrize(
    ("http", "address"),
    [("127.0.0.1:8080", ("127.0.0.1", 8080)), ("[::1]:80", ("::1", 80)), ("off", None)],
)
def test_the_address_of_the_probes(http: str, address: tuple[str, int] | None) -> None:
    """Host and port, brackets of IPv6 taken off, or none."""
    assert load_settings(flags={"http": http}).settings.http_address == address


@pytest.mark.parametrize(
    ("sharing", "together"),
    [
        (None, ["a", "b", "c", "d", "tenant", "all"]),
        ("all", ["a b c d tenant all"]),
        ("a,b;d,tenant", ["a b", "d tenant", "c", "all"]),
    ],
)
def test_who_finds_whose_beginnings(sharing: str | None, together: list[str]) -> None:
    """A tenant's own alone, but where the operator says otherwise; names are never taken for it."""
    settings = load_settings(flags={"prefix_sharing": sharing}).settings
    found: dict[str, list[str]] = {}
    for tenant in ("a", "b", "c", "d", "tenant", "all"):
        found.setdefault(settings.prefix_salt(tenant), []).append(tenant)
    assert sorted(map(" ".join, found.values())) == sorted(together)


@pytest.mark.parametrize(
    ("flags", "on_cpu", "on_gpu"),
    [
        ({}, 7, 0),
        ({"speculation": "auto"}, 7, 0),
        ({"speculation": "0"}, 0, 0),
        ({"speculation": "3"}, 3, 3),
        ({"speculation": "3", "cuda_graphs": "auto"}, 3, 3),
        ({"speculation": "auto", "cuda_graphs": "on"}, 7, 0),
    ],
)
def test_how_far_is_guessed(flags: dict[str, str], on_cpu: int, on_gpu: int) -> None:
    """By default on a CPU, where it was measured; else what was set."""
    settings = load_settings(flags=flags).settings
    assert settings.most_guessed("cpu") == on_cpu
    assert settings.most_guessed("cuda") == settings.most_guessed("cuda:1") == on_gpu
