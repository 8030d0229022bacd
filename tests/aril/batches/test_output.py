"""The file of answers and its sidecar: what is held, cut, refused, locked; when ids change."""

from __future__ import annotations

import errno
import json
import os
from typing import TYPE_CHECKING

import pytest

from aril.batches.lines import short_of
from aril.batches.output import SUFFIX, BadOutput, Output

if TYPE_CHECKING:
    from pathlib import Path

DIGESTS = [f"{at:032x}" for at in range(1, 5)]


def record(digest: str, *, error: bool = False) -> bytes:
    """Make a line of OpenAI's form."""
    told = {"id": f"name.{digest}", "custom_id": "k", "response": None}
    return json.dumps(told | {"error": {"code": "x"} if error else None}).encode() + b"\n"


def ours(digest: str, event: str) -> bytes:
    """Make a line of our form."""
    return json.dumps({"line": f"name.{digest}", "event": event}).encode() + b"\n"


def test_it_holds_what_was_written(tmp_path: Path) -> None:
    """In either form, errors counted."""
    path = tmp_path / "out"
    with Output(path) as output:
        assert len(output.held().digests) == 0
        output.append(record(DIGESTS[0]))
        output.append(ours(DIGESTS[1], "done"))
        output.append(record(DIGESTS[2], error=True))
        output.append(ours(DIGESTS[3], "error"))
    with Output(path) as output:
        held = output.held()
    assert held.failed == 2
    assert all(short_of(each) in held.digests for each in DIGESTS)


@pytest.mark.parametrize("kept", [*range(1, 12), 46, 47, 50, 60, 79])
def test_a_torn_line_is_cut_off(tmp_path: Path, kept: int) -> None:
    """However much of it is there, also where it is the only one."""
    path = tmp_path / "out"
    path.write_bytes(record(DIGESTS[1])[:kept])
    with Output(path) as output:
        assert len(output.held().digests) == 0
        assert path.read_bytes() == b""
        output.append(record(DIGESTS[0]))
    own = ours(DIGESTS[1], "done").replace(b', "event"', b', "number": 1, "event"')
    path.write_bytes(path.read_bytes() + own[:kept])
    with Output(path) as output:
        assert len(output.held().digests) == 1
        output.append(record(DIGESTS[2]))
    assert path.read_bytes() == record(DIGESTS[0]) + record(DIGESTS[2])


@pytest.mark.parametrize(
    "content",
    [
        b"my own notes",
        b"my own notes\n",
        b'{"id": "some", "x": 1}\n',
        b'{"id": 5}\n',
        b'{"id": "chatcmpl-1", "object": "chat.completion", "choices": []}',
        b'{"id": "q9", "prompt": "A prompt that somebody wrote"}',
        b'{"line": "' + b"x" * 21,
        b'{"id": "a.b", "custom_id": "k"}',
        record(DIGESTS[0])[:-1].replace(b"custom_id", b"customers"),
        record(DIGESTS[0]) + b'{"id": "q9", "prom',
        b'{"id": "batch_req_1", "custom_id": "k", "error": null}\n',
        record(DIGESTS[0]) + b"\n",
        record(DIGESTS[0]) + b'{"a": 1}\n',
        record(DIGESTS[0]).replace(b', "error"', b', "terror"'),
    ],
)
def test_another_file_is_not_touched(tmp_path: Path, content: bytes) -> None:
    """What holds anything but answers is refused, and stays as it is."""
    path = tmp_path / "out"
    path.write_bytes(content)
    with Output(path) as output, pytest.raises(BadOutput, match="name another file"):
        output.held()
    assert path.read_bytes() == content


def test_two_runs_do_not_write_one_file(tmp_path: Path) -> None:
    """The second is told; when the first has gone it may."""
    path = tmp_path / "out"
    with Output(path), pytest.raises(BadOutput, match="another run"), Output(path):
        pass
    with Output(path):
        pass


def test_the_name_stays_with_the_file(tmp_path: Path) -> None:
    """Drawn when the file is made; a file that is made anew has another, whatever lies beside."""
    path = tmp_path / "out"
    with Output(path) as output:
        first = output.name
    with Output(path) as output:
        assert output.name == first
    path.unlink()
    with Output(path) as output:
        assert output.name != first
    (tmp_path / f"out{SUFFIX}").write_bytes(b'{"name": "to')
    with Output(path) as output:
        second = output.name
    with Output(path) as output:
        assert output.name == second


def test_a_name_of_ones_own(tmp_path: Path) -> None:
    """It is kept as well, and refused where it could not be in an id."""
    path = tmp_path / "out"
    with Output(path, name="nightly") as output:
        assert output.name == "nightly"
        output.begin_round()
    with Output(path) as output:
        assert output.name == "nightly-1"
    with Output(path, name="nightly") as output:
        assert output.name == "nightly-1"
    for bad in ("", "x" * 17, "a.b", "ä"):
        if bad:
            with pytest.raises(BadOutput, match="is no name"), Output(path, name=bad):
                pass


def test_errors_are_dropped_and_asked_under_other_ids(tmp_path: Path) -> None:
    """Answers stay; where there is no error nothing changes."""
    path = tmp_path / "out"
    with Output(path) as output:
        name = output.name
        for each in (record(DIGESTS[0]), record(DIGESTS[1], error=True), ours(DIGESTS[2], "done")):
            output.append(each)
        assert output.drop_errors() == 1
        assert output.name == f"{name}-1"
        assert output.drop_errors() == 0
        assert output.name == f"{name}-1"
        output.append(record(DIGESTS[3]))
    assert path.read_bytes() == record(DIGESTS[0]) + ours(DIGESTS[2], "done") + record(DIGESTS[3])


def test_a_short_write_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a disk that takes a part at a time; a full one is told."""
    path = tmp_path / "out"
    write = os.write
    with Output(path) as output:
        monkeypatch.setattr(os, "write", lambda file, data: write(file, data[:5]))
        output.append(record(DIGESTS[0]))
        monkeypatch.undo()
        assert path.read_bytes() == record(DIGESTS[0])

        def full(_file: int, _data: bytes) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space"):
            output.append(record(DIGESTS[1]))
        monkeypatch.undo()


def test_nothing_follows_a_write_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is there of its line is taken back, and the next run takes the file."""
    path = tmp_path / "out"
    write = os.write
    with Output(path) as output:
        output.append(record(DIGESTS[0]))

        def filling(file: int, data: bytes) -> int:
            if not data.startswith(b"{"):
                raise OSError(errno.ENOSPC, "No space left on device")
            return write(file, data[:40])

        monkeypatch.setattr(os, "write", filling)
        with pytest.raises(OSError, match="No space"):
            output.append(record(DIGESTS[1]))
        monkeypatch.undo()  # somebody has made room
        with pytest.raises(OSError, match="No space"):
            output.append(record(DIGESTS[2]))
    assert path.read_bytes() == record(DIGESTS[0])
    with Output(path) as output:
        assert len(output.held().digests) == 1
        output.append(record(DIGESTS[2]))
