# SPDX-License-Identifier: GPL-3.0-or-later
"""A hanging command must not hang the play."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import _process


def test_output_and_status_are_kept_apart() -> None:
    finished = _process.run(["sh", "-c", "echo out; echo err >&2; exit 3"], timeout=10)
    assert (finished.returncode, finished.stdout, finished.stderr) == (3, "out\n", "err\n")
    assert not finished.timed_out
    assert finished.complaint() == "sh -c echo out; echo err >&2; exit 3: exit status 3: err"


def test_deadline_kills_the_child_and_its_children() -> None:
    started = time.monotonic()
    finished = _process.run(["sh", "-c", "echo $$; sleep 60 & sleep 60"], timeout=0.3)
    assert time.monotonic() - started < 5
    assert finished.timed_out
    assert finished.returncode is None
    group = finished.stdout.strip()
    time.sleep(0.1)
    left = subprocess.run(["ps", "-o", "stat=", "-g", group], capture_output=True, text=True, check=False)
    assert [state for state in left.stdout.split() if not state.startswith("Z")] == []


def test_grandchild_that_holds_the_output_open_does_not_delay_the_answer() -> None:
    started = time.monotonic()
    finished = _process.run(["sh", "-c", "setsid sleep 3 & echo done"], timeout=10)
    assert time.monotonic() - started < 2
    assert finished.stdout == "done\n"


def test_child_that_cannot_be_killed_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    # The kernel does not deliver SIGKILL to a process in state D: here the signal is swallowed instead.
    monkeypatch.setattr(_process.os, "killpg", lambda _group, _signal: None)
    monkeypatch.setattr(_process, "GRACE_SECONDS", 0.2)
    started = time.monotonic()
    assert _process.run(["sleep", "2"], timeout=0.1).timed_out
    assert time.monotonic() - started < 1.5


def test_child_has_no_input_and_the_plain_locale() -> None:
    finished = _process.run(["sh", "-c", "cat; echo $LC_ALL $GREETING"], timeout=10, env={"GREETING": "hi"})
    assert finished.stdout == "C hi\n"


def test_missing_program_is_an_error_of_its_own() -> None:
    with pytest.raises(FileNotFoundError):
        _process.run(["/nonexistent/program"], timeout=1)


def test_success_has_no_complaint() -> None:
    assert _process.run(["true"], timeout=10).complaint() == ""


def test_a_complaint_without_words_names_what_ended_how() -> None:
    assert _process.run(["false"], timeout=10).complaint() == "false: exit status 1"
    silent = _process.Finished(["mount", "x"], None, "", "", timed_out=True)
    assert silent.complaint() == "mount x: no end within the time limit"


def test_a_child_does_not_outlive_an_interrupted_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    number = tmp_path / "pid"
    real = subprocess.Popen.wait

    def wait(_child: subprocess.Popen[bytes], **_named: float) -> int:
        while not number.exists() or not number.read_text():
            time.sleep(0.01)
        monkeypatch.setattr(subprocess.Popen, "wait", real)
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess.Popen, "wait", wait)
    with pytest.raises(KeyboardInterrupt):
        _process.run(["sh", "-c", f"echo $$ > {number}; exec sleep 60"], timeout=10)
    with pytest.raises(ProcessLookupError):
        os.kill(int(number.read_text()), 0)
