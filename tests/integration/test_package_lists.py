# SPDX-License-Identifier: GPL-3.0-or-later
"""Check mode on hosts as images bring them: apt without package lists, which fails on what is not installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from .conftest import Play, play


def check(folder: Path, **packages: list[str]) -> Play:
    plays = []
    for role, host in (("nfs_server", "server1"), ("nfs_client", "node1")):
        values = {f"{role}_packages": packages[role]} if role in packages else {}
        tasks = [{"name": role, "ansible.builtin.include_role": {"name": f"clusterkit.storage.{role}"}, "vars": values}]
        plays.append({"name": role, "hosts": host, "gather_facts": False, "tasks": tasks})
    playbook = folder / "check.yml"
    playbook.write_text(yaml.safe_dump(plays))
    return play(playbook, "--check")


def test_check_mode_without_package_lists(tmp_path: Path, restored: Any) -> None:
    for name in ("server1", "node1"):
        restored.guest(name).ssh("rm -rf /var/lib/apt/lists/*")

    installed = check(tmp_path)
    assert installed.status == 0, installed.output[-3000:]
    assert "apt has no package lists" not in installed.words
    assert installed.recap("node1")["changed"] == 0

    more = check(tmp_path, nfs_server=["nfs-kernel-server", "quota"], nfs_client=["nfs-common", "quota"])
    assert more.status == 0, more.output[-3000:]
    assert more.words.count("apt has no package lists yet") == 2
    assert more.recap("node1")["changed"] == 1
