"""Every setting of a worker, once: its type, bounds, default and meaning.

Sources, strongest first: command-line flags, environment (``ARIL_*``), a TOML file named by
``--config`` or ``ARIL_CONFIG``, defaults. An unknown name in any of them is an error, as is a
value out of bounds: ``SettingsError`` carries one line that a person can act on. Variables that
Kubernetes makes for a Service called ``aril`` are no settings and are passed over.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import Field, field_validator, model_validator

from aril.connecting.loading import LoadedSettings, SettingsError, load
from aril.connecting.settings import ENV_PREFIX, ConnectionSettings
from aril.schemas.names import is_tenant

if TYPE_CHECKING:
    from collections.abc import Mapping

# What Kubernetes puts into every pod for a Service whose name begins with `aril`, as name=value.
# By its value, too: ARIL_PORT=8080 is somebody's mistake for ARIL_HTTP.
_SERVICE_LINK = re.compile(
    r"ARIL_(?:[A-Z0-9_]+_)?(?:"
    r"SERVICE_HOST=[0-9A-Fa-f.:]+"
    r"|SERVICE_PORT(?:_[A-Z0-9_]+)?=\d+"
    r"|PORT(?:_\d+_(?:TCP|UDP|SCTP))?=(?:tcp|udp|sctp)://\S+:\d+"
    r"|PORT_\d+_(?:TCP|UDP|SCTP)_(?:PROTO=(?:tcp|udp|sctp)|PORT=\d+|ADDR=[0-9A-Fa-f.:]+)"
    r")"
)

# Read by the client's side of the command line, or by the loader itself, and not by the worker.
FOREIGN_ENV: Final = {
    "ARIL_CONFIG": "TOML file of settings, of all commands that have any; as `--config`.",
    "ARIL_TENANT": "Who asks, of `aril send` and `aril batch`; as `--tenant`.",
    "ARIL_KEY": "File of the key to sign jobs with, of `aril send` and `aril batch`; as `--key`.",
    "ARIL_CACHE": "Folder that `aril demo` keeps its model in.",
    "ARIL_TOP_WORKERS": "Addresses of workers, of `aril top`, separated by commas.",
}

GATEWAY_PREFIX: Final = "gateway_"  # what the gateway is told, which may share our environment

# Names of tenants, and what they can begin with.
_TENANT_START = re.compile(r"(?:[a-z0-9][a-z0-9-]*)?")

GUESSED_ON_A_CPU = 7  # tokens a job by default: 11 bring little more (decision 070)

__all__ = ["FOREIGN_ENV", "LoadedSettings", "SettingsError", "WorkerSettings", "load_settings"]


class WorkerSettings(ConnectionSettings):
    """What a worker can be told. Field names are flag names and, in capitals, ``ARIL_`` names.

    How it reaches the brokers, and who it is to them, is said as any client of ours says it.
    """

    # --- the queue
    group: str = Field(
        "aril", min_length=1, max_length=249, description="Consumer group the workers share."
    )
    dlq_topic: str = Field(
        "jobs.dlq",
        pattern=r"^[A-Za-z0-9._-]+$",
        max_length=249,
        description="Dead-letter topic for records that cannot be answered.",
    )
    tenant_from: Literal["field", "topic", "signature"] = Field(
        "field",
        description="Where a job's tenant is read: its own field (only trusted producers may"
        " write to the topic), the name of the topic it came on, or the signature in its header.",
    )
    tenant_keys: Path | None = Field(
        None, description="Public keys of tenants that sign: <tenant>/<key-id>.pem files."
    )
    signature_age: float = Field(
        600.0,
        gt=0,
        le=86_400,
        description="Seconds that a signature's time and its record's may lie apart.",
    )
    limits: Path | None = Field(
        None,
        description="TOML file of what each tenant may use: weights, rates, counts. Read again when"
        " it changes.",
    )
    create_topics: bool = Field(
        default=False, description="Create a tenant's missing reply topic as the contract wants it."
    )
    group_protocol: Literal["classic", "consumer"] = Field(
        "classic",
        description="How the group works: classic, all partitions stop at each rebalance; consumer,"
        " only those that move do (KIP-848: Apache Kafka 4.0 or later). The same in all workers of"
        " a group. Consumer needs `pip install 'aril[consumer-protocol]'`.",
    )
    session_timeout_ms: int = Field(
        10_000,
        ge=1_000,
        le=300_000,
        description="A worker silent for this long is declared dead. With group_protocol=consumer"
        " the brokers say how long.",
    )
    rebalance_timeout_ms: int = Field(
        30_000, ge=1_000, le=600_000, description="Longest a worker may take to hand partitions on."
    )
    assignor: Literal["sticky", "consolidate"] = Field(
        "sticky",
        description="Who gets which partitions: sticky spreads them evenly, consolidate fills few"
        " workers and lets the others stand by. The same in all workers of a group.",
    )
    rebalance_seconds: float = Field(
        60.0, ge=1, le=86_400, description="Least time between rebalances to consolidate."
    )

    # --- what is served
    model: str = Field(
        "", description="Folder of the backbone: a Hugging Face causal LM with its tokenizer."
    )
    adapters: Path | None = Field(
        None, description="Adapter store: <tenant>/<name>/ and shared/<name>/ folders of PEFT LoRA."
    )
    base: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        description="What the backbone is called, in replies and where adapters name their base"
        " model; by default after its folder.",
    )
    base_check: Literal["warn", "strict"] = Field(
        "warn",
        description="What an adapter gets that fits but names another base model: a warning in the"
        " log, or a refusal.",
    )
    adapter_templates: bool = Field(
        default=False,
        description="Render an adapter's messages by the chat template in its folder, which is its"
        " tenant's code, in a process that bounds it. The same in all workers of a group.",
    )
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
        description="Where the model runs; auto takes a GPU if there is one.",
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="Weights and activations; auto: bfloat16 on a GPU and on a CPU that multiplies"
        " it (avx512_bf16, AMX), float32 on other CPUs.",
    )
    weights: Literal["stored", "int8"] = Field(
        "stored",
        description="The backbone's layers as they are stored, or rounded to eight bits at start,"
        " which is smaller and faster; `aril check` says how much the answers change. Only on a CPU"
        " with avx512_vnni or avx_vnni; the same in all workers of a group.",
    )
    invariant: bool = Field(
        default=False,
        description="Answers do not depend on who shares the batch, bit for bit; slower, CPU only.",
    )
    cuda_graphs: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Capture decode steps at start and replay them, on a GPU; auto: where replays"
        " are shown to give what eager steps give, and not with speculation; on: or do not start.",
    )
    run_ahead: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Plan and launch a step while the one before runs; auto: on a GPU. The answers"
        " are the same. Not with speculation.",
    )
    threads: int = Field(
        0,
        ge=0,
        le=1024,
        description="CPU threads of a step; 0: the cores that it may use, by affinity and quota.",
    )

    # --- batching
    window_ms: float = Field(
        5.0, ge=0, le=10_000, description="How long an idle engine waits to gather a batch."
    )
    max_rows: int = Field(16, ge=1, le=4096, description="Jobs that decode at the same time.")
    max_step_tokens: int = Field(
        512, ge=16, le=1_048_576, description="Tokens of one step, decodes and prefill together."
    )
    step_stretch: float = Field(
        2.0,
        ge=1,
        le=1_000,
        description="How many times as long as a decode of all its jobs a step may last that"
        " computes prompts beside decodes; 1000: as long as max_step_tokens lets it. CPU only.",
    )
    slots: int = Field(8, ge=1, le=1000, description="Adapters resident on the device at a time.")
    max_rank: int = Field(64, ge=1, le=256, description="Largest LoRA rank served.")
    expert_bytes: int = Field(
        512 << 20,
        ge=1 << 20,
        description="Memory that one adapter's LoRA on a mixture's experts may take in its slot.",
    )
    kv_tokens: Annotated[int, Field(ge=64, le=1 << 31)] | Literal["auto"] = Field(
        "auto",
        description="Tokens that the KV cache holds, over all jobs, 64 or more; auto: as many as"
        " there is memory for beside the weights, on a CPU a quarter of it and at most 32768.",
    )
    prefix_cache: bool = Field(
        default=True,
        description="Take what is computed already of a job's beginning from the KV cache.",
    )
    prefix_sharing: str = Field(
        "tenant",
        description="Who finds whose beginnings: `tenant`, each its own only; `all`; or groups of"
        " tenants, as in `acme,acme-test;beta,gamma`. Those who share can tell by the time to a"
        " first token whether another has sent the same beginning.",
    )
    speculation: Annotated[int, Field(ge=0, le=11)] | Literal["auto"] = Field(
        "auto",
        description="Most tokens that a step guesses ahead for a job, from what followed the same"
        " words in its own text and in earlier answers of its adapter, and checks; 0: none; auto: 7"
        " on a CPU, none on a GPU. Answers change by rounding at most, as they do by the jobs"
        " beside them, and not at all with invariant. No steps are captured beside it.",
    )
    max_prompt_tokens: int = Field(
        8_192, ge=1, le=1 << 24, description="Longest prompt; a longer one is refused."
    )
    max_new_tokens: int = Field(
        4_096, ge=1, le=1 << 24, description="Largest max_tokens that a job may ask for."
    )
    adapter_cache_bytes: int = Field(
        1 << 30, ge=1 << 20, description="Host memory for adapters that wait beside the device."
    )
    lookahead: int = Field(
        100_000, ge=1, le=10_000_000, description="Jobs read ahead of the engine, a partition."
    )
    lookahead_bytes: int = Field(
        64 << 20,
        ge=1 << 20,
        description="Memory for jobs read ahead, over all partitions; as much again for what"
        " waits for a broker to take it, a quarter of it for one partition.",
    )

    # --- time
    max_job_age: float = Field(
        86_400.0, gt=0, description="Seconds after which a job nobody served ends in an error."
    )
    clock_slack: float = Field(
        600.0, ge=0, description="Seconds that broker and worker clocks may differ."
    )
    drain_seconds: float = Field(
        25.0, ge=0, le=3_600, description="Seconds that running jobs get to finish on SIGTERM."
    )
    commit_interval_ms: float = Field(
        200.0, ge=1, le=60_000, description="How often finished offsets are committed."
    )

    # --- how it tells about itself
    http: str = Field(
        "127.0.0.1:8080", description="Address of /livez, /readyz and /metrics; `off` for none."
    )
    metrics_tenants: int = Field(
        20,
        ge=0,
        le=1_000,
        description="Tenants, those with the most tokens, that metrics tell of by name, and as many"
        " adapters; all others are told of together. 0: nobody is named.",
    )
    traces: Literal["off", "on", "steps"] = Field(
        "off",
        description="Send OpenTelemetry spans of jobs, as `OTEL_*` in the environment says; steps:"
        " and of one step of the engine a second. Needs `pip install 'aril[otel]'`.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least level that is logged."
    )
    log_format: Literal["auto", "console", "json"] = Field(
        "auto", description="auto: for people on a terminal, JSON lines elsewhere."
    )

    @field_validator("http")
    @classmethod
    def _host_and_port(cls, value: str) -> str:
        highest_port = 65_535
        host, _, port = value.rpartition(":")
        if value != "off" and not (host and port.isdigit() and int(port) <= highest_port):
            raise ValueError("must be host:port or off")
        return value

    @field_validator("prefix_sharing")
    @classmethod
    def _each_tenant_in_one_group(cls, value: str) -> str:
        if value in {"tenant", "all"}:
            return value
        groups = [group.split(",") for group in value.split(";")]
        tenants = [name for group in groups for name in group]
        if not all(map(is_tenant, tenants)) or min(map(len, groups)) == 1:
            raise ValueError("must be tenant, all, or groups of tenants: one,other;third,fourth")
        if len(set(tenants)) != len(tenants):
            twice = next(name for name in tenants if tenants.count(name) > 1)
            raise ValueError(f"{twice} is in two groups")
        return value

    @model_validator(mode="after")
    def _tenant_source_fits_topic(self) -> WorkerSettings:
        if self.tenant_from == "topic" and not self.jobs_topic.endswith("*"):
            raise ValueError("tenant_from=topic needs a jobs_topic pattern that ends in *")
        if self.tenant_from != "topic" and self.jobs_topic.endswith("*"):
            raise ValueError("a jobs_topic pattern needs tenant_from=topic")
        if self.tenant_from == "signature" and self.tenant_keys is None:
            raise ValueError("tenant_from=signature needs tenant_keys, a folder of public keys")
        if self.tenant_from != "signature" and self.tenant_keys is not None:
            raise ValueError(
                f"tenant_keys are not looked at with tenant_from={self.tenant_from}:"
                " set tenant_from=signature, or leave them out"
            )
        if self.max_step_tokens < self.max_rows:
            raise ValueError("max_step_tokens must be at least max_rows")
        return self

    @model_validator(mode="after")
    def _brokers_assign_by_themselves(self) -> WorkerSettings:
        if self.group_protocol == "classic":
            return self
        if self.assignor != "sticky":
            raise ValueError(
                f"assignor={self.assignor} and group_protocol=consumer: brokers assign there, and"
                " know no assignor of ours: leave one of them out"
            )
        if "session_timeout_ms" in self.model_fields_set:
            raise ValueError(
                "session_timeout_ms is not looked at with group_protocol=consumer: set the group's"
                " consumer.session.timeout.ms on the brokers, or leave one of them out"
            )
        return self

    @model_validator(mode="after")
    def _recordings_have_no_drafts(self) -> WorkerSettings:
        if self.cuda_graphs == "on" and self.speculation not in {"auto", 0}:
            raise ValueError(
                "cuda_graphs=on captures steps of one token a row: no speculation beside it"
            )
        return self

    @model_validator(mode="after")
    def _topics_do_not_meet(self) -> WorkerSettings:
        """Refuse names under which a worker would read what it writes, or mix what it writes.

        A pattern of jobs topics leaves the dead letters out by itself: see `topic_pattern`.
        """
        if self.dlq_topic == self.jobs_topic:
            raise ValueError(
                f"dlq_topic and jobs_topic are both {self.dlq_topic}:"
                " each dead letter would be read as a job again"
            )
        for name in ("jobs_topic", "dlq_topic"):
            topic = getattr(self, name)
            rest = topic.removesuffix("*").removeprefix(self.replies_prefix)
            # A pattern reads whatever its beginning can be made a tenant's name with.
            if topic.startswith(self.replies_prefix) and _TENANT_START.fullmatch(rest):
                raise ValueError(
                    f"{name}={topic} takes in reply topics, which begin with {self.replies_prefix}"
                )
        return self

    def prefix_salt(self, tenant: str) -> str:
        """Return what jobs have in common that may find each other's beginnings in the cache."""
        if self.prefix_sharing == "all":
            return "all"
        for group in self.prefix_sharing.split(";"):  # `tenant` names no group
            if "," in group and tenant in group.split(","):
                return f"group {group}"
        return f"tenant {tenant}"

    def most_guessed(self, device: str) -> int:
        """Return how many tokens a step on this device guesses ahead for a job; 0: none."""
        if self.speculation == "auto":
            return GUESSED_ON_A_CPU if device == "cpu" else 0
        return self.speculation

    @property
    def who_assigns(self) -> str:
        """Who says which worker has which partitions: an assignor of the group's, or brokers."""
        return self.assignor if self.group_protocol == "classic" else "brokers"

    @property
    def http_address(self) -> tuple[str, int] | None:
        """Host and port of the probes, or None when they are off."""
        if self.http == "off":
            return None
        host, _, port = self.http.rpartition(":")
        return host.strip("[]"), int(port)


def load_settings(
    *, flags: Mapping[str, Any] | None = None, config: Path | None = None
) -> LoadedSettings[WorkerSettings]:
    """Return a worker's settings; see `aril.connecting.loading.load`. Raises ``SettingsError``."""
    return load(WorkerSettings, foreign=_foreign, flags=flags, config=config)


def _foreign(name: str, value: str | None) -> bool:
    """Whether a name is known to others: commands, the gateway, Kubernetes."""
    if name.startswith(GATEWAY_PREFIX):
        return True
    variable = f"{ENV_PREFIX}{name.upper()}"
    if value is None or variable in FOREIGN_ENV:
        return value is not None
    return _SERVICE_LINK.fullmatch(f"{variable}={value}") is not None
