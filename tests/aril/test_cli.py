"""The command line without a broker: help, mistakes in one line, exit codes, what is imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from aril.arguments import FAILED, USAGE
from aril.cli import COMMANDS, main
from aril.commands.groups import worker_groups
from aril.worker.settings import WorkerSettings
from tests.support.answering import answering

if TYPE_CHECKING:
    from pathlib import Path

    from tests.aril.conftest import RunAril


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each command explains itself, with examples, and its summary is in the overview."""
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: aril {name}")
    assert "examples:" in text
    assert main(["--help"]) == 0
    assert COMMANDS[name].summary in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "which command?"),
        (["wroker"], "did you mean worker?"),
        (["worker", "--windw-ms", "3"], "--windw-ms"),
        (["config", "--window-ms", "-1"], "--window-ms"),
        (["config", "--config", "/nowhere.toml"], "/nowhere.toml"),
        (["topics", "Not_A_Tenant"], "'Not_A_Tenant' is not a tenant's name"),
        (["topics", "--partitions", "0", "acme"], "--partitions"),
        (["topics", "--jobs-topic", "jobs.*", "--config", "/nowhere.toml"], "/nowhere.toml"),
        (["topics", "--dlq-partitions", "0", "acme"], "--dlq-partitions"),
        (["top", "ftp://x"], "is not an address"),
        (["top", "--interval", "0"], "--interval"),
        (["top", "--interval", "nan"], "--interval"),
        (["top", "--rows", "-1"], "--rows"),
        (["dlq"], "ACTION"),
        (["dlq", "list"], "invalid choice: 'list'"),
        (["dlq", "ls", "--since", "yesterday"], "--since yesterday: a time is 90m"),
        (["dlq", "ls", "--limit", "0"], "--limit"),
        (["dlq", "show"], "which letters?"),
        (["dlq", "show", "jobs/5"], "a place is topic/partition/offset"),
        (["dlq", "replay", "--yes"], "which letters?"),
        (["dlq", "replay", "--all", "--tenant", "acme", "--yes"], "which letters?"),
        (["dlq", "replay", "--all"], "nobody can be asked here"),
        (["dlq", "purge", "--all"], "nobody can be asked here"),
        (["dlq", "purge", "--yes"], "up to where?"),
        (["dlq", "purge", "--all", "--until", "7d", "--yes"], "up to where?"),
        (["dlq", "purge", "--upto", "7", "--yes"], "a partition and an offset"),
        (["dlq", "purge", "--until", "7d", "--tenant", "acme"], "cannot be honoured"),
        (["dlq", "purge", "--reason", "malformed", "--yes"], "cannot be honoured"),
        (["send", "hi"], "ARIL_TENANT"),
        (["send", "-t", "../acme", "hi"], "not a tenant's name"),
        (["send", "-t", "acme", "--max-tokens", "0", "hi"], "--max-tokens"),
        (["send", "-t", "acme", "--max-tokens", "many", "hi"], "--max-tokens"),
        (["send", "-t", "acme", "--stop-token-ids", "x", "hi"], "--stop-token-ids"),
        (["send", "-t", "acme", "--jsonl", "/nowhere.jsonl"], "/nowhere.jsonl"),
        (["send", "-t", "acme", "--jsonl", "x", "hi"], "not from both"),
        (["send", "-t", "acme", "--resume", "nonsense"], "a token is"),
        (["send", "-t", "acme", "-a", "../x", "hi"], "adapter"),
        (["adapters"], "ARIL_ADAPTERS"),
        (["adapters", "--model", "/nowhere", "--adapters", "/"], "no config.json"),
        (["check", "--ready", "ftp://x"], "is not an address"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wrong usage and bad settings end with code 2 and one line that names what is wrong."""
    assert main(arguments) == USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert told in err


def test_bad_line_of_jsonl(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A bad line is named by number, and nothing is sent for the good ones."""
    for bad in ("{", "[]", '{"promt": "hi"}', '{"prompt": 3}', '{"id": "a/b", "prompt": "x"}'):
        jobs = tmp_path / "jobs.jsonl"
        jobs.write_text('{"prompt": "good"}\n' + bad + "\n")
        assert main(["send", "-t", "acme", "--jsonl", str(jobs)]) == USAGE
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        assert "line 2" in err or "job 2" in err


def test_every_setting_is_in_a_group() -> None:
    """`--help` and `aril config` leave no setting out."""
    grouped = [name for names in worker_groups().values() for name in names]
    assert grouped == list(WorkerSettings.model_fields)


def test_config_tells_origins(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each value comes with its source; secrets are never shown, and are no flag."""
    file = tmp_path / "aril.toml"
    file.write_text('group = "from-file"\nmax_rows = 3\n')
    monkeypatch.setenv("ARIL_MAX_ROWS", "4")
    monkeypatch.setenv("ARIL_SECURITY_PROTOCOL", "SASL_SSL")
    monkeypatch.setenv("ARIL_SASL_USERNAME", "worker")
    monkeypatch.setenv("ARIL_SASL_PASSWORD", "hunter2")
    assert main(["config", "--json", "--config", str(file), "--slots", "5"]) == 0
    out = capsys.readouterr().out
    shown = json.loads(out)
    assert shown["group"] == {"value": "from-file", "from": "file"}
    assert shown["max_rows"] == {"value": "4", "from": "env"}
    assert shown["slots"] == {"value": "5", "from": "flag"}
    assert shown["bootstrap"]["from"] == "default"
    assert shown["sasl_password"] == {"value": "***", "from": "env"}
    assert "hunter2" not in out
    assert main(["config", "--sasl-password", "hunter2"]) == USAGE


@pytest.mark.parametrize(
    "arguments", [["--help"], ["send", "--help"], ["check", "--ready", "127.0.0.1:1"]]
)
def test_light_commands_stay_light(arguments: list[str]) -> None:
    """Help, `send` and the readiness check import neither torch nor transformers."""
    script = (
        "import sys; from aril.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'triton'} & sys.modules.keys()\n"
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)])
async def test_check_ready(aril: RunAril, status: int, code: int) -> None:
    """`check --ready` prints what the worker says and ends by its status."""
    async with answering("/readyz", status, '{"model": "loading"}') as address:
        by_flag = await aril("check", "--ready", f"http://{address}")
        by_env = await aril("check", "--ready", env={"ARIL_HTTP": address})
    assert (by_flag.code, by_flag.out) == (code, '{"model": "loading"}\n')
    assert by_env == by_flag


async def test_check_ready_without_a_worker(aril: RunAril) -> None:
    """Nobody there is not ready."""
    done = await aril("check", "--ready", "http://127.0.0.1:1")
    assert done.code == 1
    assert done.out.startswith("not ready: 127.0.0.1:1")


def test_closed_pipe() -> None:
    """Output into a pipe that nobody reads any more, as with `| head`, ends quietly."""
    nobody, pipe = os.pipe()
    os.close(nobody)
    command = [sys.executable, "-m", "aril", "config"]
    done = subprocess.run(command, stdout=pipe, stderr=subprocess.PIPE, text=True, check=False)
    os.close(pipe)
    assert done.stderr == ""
    assert done.returncode == FAILED
