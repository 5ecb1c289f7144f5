# SPDX-License-Identifier: GPL-3.0-or-later
"""The bootstrap on everything else that is supported, from a second checkout while the first lab runs."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from lab.settings import pins

from .conftest import ROOT, play
from .test_lab import lab_command


@pytest.mark.long
@pytest.mark.usefixtures("shared")
def test_bootstrap_of_older_versions_with_two_servers_and_ext4(tmp_path: Path) -> None:
    other, folder = tmp_path / "checkout", tmp_path / "inventory"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(other)], check=True)
    versions = ["--kubernetes", pins()["kubernetes"][-1], "--debian", pins()["debian"][-1]]
    try:
        lab_command("up", *versions, "--servers", "2", "--export-disk", "ext4", cwd=other)
        shutil.copytree(ROOT / "inventory", folder)
        (folder / "hosts.yml").write_text(lab_command("inventory", cwd=other))
        first = play("clusterkit.storage.site", inventory=folder, timeout=2400)
        assert first.status == 0, first.output[-5000:]
        second = play("clusterkit.storage.site", inventory=folder, timeout=2400)
        hosts = ("server1", "server2", "node1", "node2", "localhost")
        assert [second.recap(host)["changed"] for host in hosts] == [0, 0, 0, 0, 0]
        assert "ext4" in lab_command("ssh", "server1", "findmnt -no FSTYPE /nfs", cwd=other)
        assert "VERSION_CODENAME=bookworm" in lab_command("ssh", "node2", "cat /etc/os-release", cwd=other)
    finally:
        lab_command("down", cwd=other)
