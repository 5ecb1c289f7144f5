# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs that run for long: their lines come while they run, secrets by descriptors, nothing stays behind."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import _backup_process
from ansible_collections.clusterkit.storage.plugins.module_utils._backup_process import Ended, follow, gentle, secret


def test_lines_come_while_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_backup_process, "_TICK_SECONDS", 0.05)
    lines: list[tuple[bytes, float]] = []
    ticks: list[int] = []
    ended = follow(
        ["sh", "-c", "echo one; sleep 0.4; printf 'two\\nthree'; echo wrong >&2; exit 3"],
        text=lambda text: lines.append((text, time.monotonic())),
        tick=ticks.append,
    )
    assert [text for text, _when in lines] == [b"one\n", b"two\n", b"three"]
    assert lines[1][1] - lines[0][1] > 0.2
    assert ticks and ended == Ended(3, "wrong\n") and ended.words() == "wrong"
    assert Ended(-9, " \n").words() == "exit status -9"


def test_it_runs_in_an_open_directory_with_open_descriptors(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    descriptor = os.open(tmp_path / "inside", os.O_RDONLY)
    (tmp_path / "inside").rename(tmp_path / "moved")
    lines: list[bytes] = []
    with secret("hidden\udcff") as (number, path):
        script = f"pwd; cat {path}; echo; echo $VALUE"
        follow(["sh", "-c", script], text=lines.append, cwd=descriptor, env={"VALUE": "7"}, descriptors=[number])
    os.close(descriptor)
    assert b"".join(lines) == bytes(tmp_path / "moved") + b"\nhidden\xff\n7\n"
    assert not Path(path).exists()


def test_nothing_goes_on_when_nobody_listens() -> None:
    started: list[int] = []

    class Enough(Exception):  # noqa: N818 - ends the test
        pass

    def take(text: bytes) -> None:
        started.append(int(text))
        raise Enough

    with pytest.raises(Enough):
        follow(["sh", "-c", "echo $$; exec sleep 60"], text=take)
    with pytest.raises(ProcessLookupError):
        os.kill(started[0], 0)


def test_a_program_that_is_not_there() -> None:
    with pytest.raises(FileNotFoundError):
        follow(["no-such-program"], text=lambda _text: None)


def test_how_much_a_process_has_read() -> None:
    assert (_backup_process.bytes_read(os.getpid()) or 0) > 0
    assert _backup_process.bytes_read(2**30) is None


def test_standing_back() -> None:
    assert gentle(0, "none") == []
    assert gentle(10, "best-effort") == ["nice", "-n", "10", "ionice", "-c", "2", "-n", "7"]
    assert gentle(0, "idle") == ["ionice", "-c", "3"]
    assert sys.platform == "linux"
