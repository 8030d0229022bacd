"""`aril check`: tells whether everything is there that a worker needs."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from aril.arguments import FAILED, OK, add_settings, quiet_libraries, security_of, settings_of
from aril.commands.groups import worker_groups
from aril.commands.report import Report

if TYPE_CHECKING:
    import argparse

    from aril.commands.backbone import ModelFolder
    from aril.worker.settings import WorkerSettings
    from aril.worker.topics.admin import Finding

DESCRIPTION: Final = """\
Try a worker's settings before a worker does: do they parse, do the brokers answer, are the topics
as the contract demands, could the model be loaded, can every adapter be served? A line each; exit
code 1 if one of them is not so. Takes the flags of `aril worker`. With --weights int8 the model is
loaded, and a line says how much its answers change.

With --ready [URL] it asks a running worker instead, and nothing else: exit code 0 if it takes jobs.
That is light enough for a container's health check."""

EXAMPLES: Final = """\
examples:
  aril check --model ./model --adapters ./store
  aril check --ready                               the worker at ARIL_HTTP
  aril check --ready http://127.0.0.1:8080"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's flags."""
    parser.usage = "aril check [options]   or   aril check --ready [URL]"
    parser.description = DESCRIPTION
    parser.epilog = EXAMPLES
    parser.add_argument(
        "--ready", nargs="?", metavar="URL", help="only ask the worker at URL [env ARIL_HTTP]"
    )
    add_settings(parser, worker_groups())


def run(arguments: argparse.Namespace) -> int:
    """Check; return the exit code."""
    loaded = settings_of(arguments)
    settings, report = loaded.settings, Report()
    changed = sum(origin != "default" for origin in loaded.origins.values())
    report.line("good", "settings", f"{changed} of {len(loaded.origins)} are not the default")
    quiet_libraries()
    tenants = asyncio.run(_check_queue(settings, report))
    check_keys(settings, tenants, report)
    check_traces(settings, report)
    model = _check_model(settings, report)
    if model is not None and settings.weights == "int8":
        _check_int8(settings, report)
    if model is not None:
        _check_adapters(settings, model, report)
    return FAILED if report.failed else OK


async def _check_queue(settings: WorkerSettings, report: Report) -> set[str]:
    """Check brokers and topics; return the tenants that have a reply topic."""
    from aril.worker.topics.admin import (  # noqa: PLC0415 - aiokafka takes 0.1 s
        Contract,
        TopicAdmin,
        TopicsError,
    )

    contract = Contract.of(settings)
    try:
        async with TopicAdmin(
            settings.bootstrap, contract, security=security_of(settings)
        ) as admin:
            report.line("good", "broker", f"{settings.bootstrap} answers")
            findings, states = await admin.verify(), await admin.states()
    except TopicsError as error:
        report.line("bad", "broker", str(error))
        return set()
    _report_findings(findings, report)
    replies = [state.name for state in states if contract.is_replies(state.name)]
    if not any(finding.level == "error" for finding in findings):
        partitions = sum(state.partitions for state in states if contract.is_jobs(state.name))
        text = f"{partitions} partitions of jobs, {len(replies)} tenants with replies"
        report.line("good", "topics", text)
    return {name.removeprefix(settings.replies_prefix) for name in replies}


def _report_findings(findings: list[Finding], report: Report) -> None:
    for finding in findings:
        report.line("bad" if finding.level == "error" else "warning", "topics", str(finding))


def check_keys(settings: WorkerSettings, tenants: set[str], report: Report) -> None:
    """Check the keys of tenants that sign; name the tenants whose jobs would all be put aside."""
    if settings.tenant_keys is None:
        return
    from aril.worker.intake.tenant_keys import (  # noqa: PLC0415 - cryptography, only for those who need it
        TenantKeysError,
        read_keys,
    )

    try:
        found = read_keys(settings.tenant_keys)
    except TenantKeysError as error:
        report.line("bad", "keys", str(error).removeprefix("tenant keys: "))
        return
    for problem in found.problems:
        report.line("bad", "keys", problem)
    for tenant in sorted(tenants - found.tenants):
        report.line("warning", "keys", f"{tenant} has replies and no key: its jobs are put aside")
    if found.keys:
        report.line("good", "keys", f"{len(found.keys)} of {len(found.tenants)} tenants")
    else:
        report.line("bad", "keys", "no tenant has one: every job is put aside")


def check_traces(settings: WorkerSettings, report: Report) -> None:
    """Check whether spans could be sent as OpenTelemetry's environment says; none is."""
    if settings.traces == "off":
        return
    from aril.worker.observe.metrics import Metrics  # noqa: PLC0415 - only for those who want traces
    from aril.worker.observe.traces import TracesError, open_recorder  # noqa: PLC0415 - same

    metrics = Metrics()
    try:
        recorder = open_recorder(
            "check", ended=metrics.spans_ended, exported=metrics.spans_exported
        )
    except TracesError as error:
        report.line("bad", "traces", str(error))
        return
    asyncio.run(recorder.close(1.0))
    report.line("good", "traces", "OpenTelemetry's packages are there, and take OTEL_*")


def _check_model(settings: WorkerSettings, report: Report) -> ModelFolder | None:
    if not settings.model:
        report.line("bad", "model", "not set (--model or ARIL_MODEL)")
        return None
    from aril.commands.backbone import (  # noqa: PLC0415 - torch and transformers: seconds
        ModelFolderError,
        read_model_folder,
    )

    try:
        model = read_model_folder(settings.model, settings.base)
    except ModelFolderError as error:
        report.line("bad", "model", str(error))
        return None
    millions = model.parameters / 1e6
    text = f"{model.name}: {model.kind}, {millions:,.0f} M parameters"
    report.line("good", "model", text)
    if not model.has_chat_template:
        report.line("warning", "model", "no chat template: jobs with messages will be refused")
    return model


def _check_int8(settings: WorkerSettings, report: Report) -> None:
    from aril.commands.int8_change import measure  # noqa: PLC0415 - as above
    from aril.worker.loading import ModelError  # noqa: PLC0415 - same

    try:
        change = measure(settings)
    except ModelError as error:
        report.line("bad", "weights", str(error))
        return
    report.line("good", "weights", str(change))


def _check_adapters(settings: WorkerSettings, model: ModelFolder, report: Report) -> None:
    if settings.adapters is None:
        report.line("good", "adapters", "none: only the backbone is served")
        return
    if not settings.adapters.is_dir():
        report.line("bad", "adapters", f"{settings.adapters} is not a folder")
        return
    from aril.commands.adapters import list_store  # noqa: PLC0415 - as above

    if model.parameter_shapes.experts:
        report.line("good", "adapters", experts_room(settings, model))
    found = list_store(settings.adapters, model, settings)
    for entry in found:
        if entry.warning:
            report.line("warning", "adapters", f"{entry.tenant}/{entry.name}: {entry.warning}")
        if entry.problem:
            report.line("bad", "adapters", f"{entry.tenant}/{entry.name}: {entry.problem}")
    good = [entry for entry in found if not entry.problem]
    tenants = len({entry.tenant for entry in good})
    report.line("good", "adapters", f"{len(good)} can be served, of {tenants} owners")


def experts_room(settings: WorkerSettings, model: ModelFolder) -> str:
    """Say what LoRA on all experts fits a slot, and what all slots can take."""
    from aril.worker.loading import slot_value_bytes  # noqa: PLC0415 - as above

    shapes = model.parameter_shapes.experts.values()
    a_rank = slot_value_bytes(settings) * sum(shape.values_of_a_rank for shape in shapes)
    rank = min(settings.expert_bytes // a_rank, settings.max_rank)
    most = settings.slots * min(settings.expert_bytes, settings.max_rank * a_rank) / 1e9
    return (
        f"LoRA on all experts fits a slot up to rank {rank}, {settings.slots} slots may take"
        f" {most:.2g} GB (ARIL_EXPERT_BYTES)"
    )
