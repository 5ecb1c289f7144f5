# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab itself: what tests and people lean on."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from .conftest import ROOT


def lab_command(*words: str, cwd: Path = ROOT) -> str:
    env = {**os.environ, "PYTHONPATH": str(cwd)}
    done = subprocess.run(
        [sys.executable, "-m", "lab", *words], cwd=cwd, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def clock_error(guest: Any) -> float:
    """Seconds by which a machine's clock is surely wrong: what lies outside of the time that asking took."""
    before = time.time()
    there = float(guest.ssh("date +%s.%N"))
    return max(before - there, there - time.time(), 0)


def test_frozen_machine_does_not_answer_and_a_thawed_one_does(lab: Any) -> None:
    lab_command("freeze", "server1")
    assert "server1                  paused" in lab_command("status")
    time.sleep(3)
    lab_command("thaw", "server1")
    server = lab.guest("server1")
    assert clock_error(server) < 2


IMPORTS = """
import os, subprocess, sys, tempfile, time, zipfile
new, kept = time.time_ns(), len(os.listdir("/run/zipimport"))
with tempfile.TemporaryDirectory() as folder:
    for name, word in (("one", "first"), ("two", "first"), ("one", "other")):
        archive = f"{folder}/{name}.zip"
        with zipfile.ZipFile(archive, "w") as stream:
            stream.writestr("raises.py", f"\\n\\nraise SystemError('{word}') # {new}\\n")
        env = {**os.environ, "PYTHONPATH": archive}
        done = subprocess.run([sys.executable, "-c", "import raises"], env=env, capture_output=True, text=True)
        lines = done.stderr.replace(folder, "").splitlines()
        print(*(line for line in lines if "raises.py" in line or line.startswith("SystemError")))
print(len(os.listdir("/run/zipimport")) - kept)
"""


def test_what_python_keeps_of_a_zip_archive_is_the_source_in_it(lab: Any) -> None:
    """Two archives with the same source, and the same archive with another one of the same length."""
    assert lab.guest("server1").ssh("python3 -", stdin=IMPORTS.encode()).splitlines() == [
        '  File "/one.zip/raises.py", line 3, in <module> SystemError: first',
        '  File "/two.zip/raises.py", line 3, in <module> SystemError: first',
        '  File "/one.zip/raises.py", line 3, in <module> SystemError: other',
        "2",
    ]


@pytest.mark.long
def test_power_cut_loses_what_was_not_written(restored: Any) -> None:
    server = restored.guest("server1")
    server.ssh("echo kept > /nfs/kept; sync; echo lost > /nfs/lost")
    lab_command("reset", "server1")
    assert server.ssh("ls /nfs").split() == ["k8s", "kept"] or "lost" not in server.ssh("cat /nfs/lost")


@pytest.mark.long
@pytest.mark.usefixtures("shared")
def test_two_labs_side_by_side_and_an_interrupted_up(tmp_path: Path) -> None:
    """From a second checkout, while the first lab runs; killed on its way up, and repaired by the next `up`."""
    other = tmp_path / "checkout"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(other)], check=True)
    env = {**os.environ, "PYTHONPATH": str(other)}
    up = subprocess.Popen([sys.executable, "-m", "lab", "up"], cwd=other, env=env, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while not list(other.glob(".work/lab/run/node1.process")) and time.monotonic() < deadline:
            time.sleep(0.2)
        up.kill()
        up.wait()
        assert "done" in lab_command("up", cwd=other)
        assert lab_command("status", cwd=other).startswith("up")
        assert lab_command("status").startswith("up"), "the first lab goes on"
    finally:
        lab_command("down", cwd=other)
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(other) not in running, "`down` left a process behind"
