# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
import subprocess
from pathlib import Path

from ansible_collections.clusterkit.storage.plugins.module_utils import _holders


def test_a_process_that_works_in_the_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    with subprocess.Popen(["sleep", "60"], cwd=tmp_path / "deep") as process:
        try:
            assert _holders.processes_in(str(tmp_path)) == [f"process {process.pid} (sleep)"]
            assert _holders.processes_in(str(tmp_path) + "x") == []
        finally:
            process.kill()


def test_a_process_that_has_a_file_open_is_named(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w"):
        (found,) = _holders.processes_in(str(tmp_path))
    assert found.startswith(f"process {os.getpid()} (")


def test_many_are_counted_not_listed(tmp_path: Path) -> None:
    proc = tmp_path / "proc"
    (proc / "self" / "ns").mkdir(parents=True)
    (proc / "self" / "ns" / "mnt").symlink_to("mnt:[1]")
    for number in range(1, 15):
        process = proc / str(number)
        (process / "ns").mkdir(parents=True)
        # The last one lives in another mount namespace: its path means something else.
        (process / "ns" / "mnt").symlink_to("mnt:[2]" if number == 14 else "mnt:[1]")
        (process / "cwd").symlink_to("/data/x")
        (process / "comm").write_text("writer\n")
    found = _holders.processes_in("/data", proc)
    assert found[0] == "process 1 (writer)"
    assert found[-1] == "3 more"


def test_a_process_that_ends_meanwhile_has_no_name(tmp_path: Path) -> None:
    process = tmp_path / "7"
    (process / "ns").mkdir(parents=True)
    (tmp_path / "self/ns").mkdir(parents=True)
    for each in (process, tmp_path / "self"):
        (each / "ns/mnt").symlink_to("mnt:[1]")
    (process / "root").symlink_to("/data")
    assert _holders.processes_in("/data", tmp_path) == ["process 7 (?)"]
