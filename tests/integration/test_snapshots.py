# SPDX-License-Identifier: GPL-3.0-or-later
"""Snapshots of the lab. The name of this file lets it bring back what test_power_cuts.py leaves behind."""

from __future__ import annotations

from .conftest import Shared
from .test_lab import clock_error, lab_command


def test_snapshot_brings_back_machines_and_cluster_together(shared: Shared) -> None:
    lab, merge = shared.to_be_changed(), "application/merge-patch+json"
    node, node_path = lab.guest("node1"), "/api/v1/nodes/node1"
    node.ssh("touch /root/after-the-snapshot; sync")
    lab.control_plane.request("PATCH", node_path, {"metadata": {"labels": {"after": "yes"}}}, merge)
    lab_command("restore", "bootstrapped")
    shared.changed = False
    assert node.ssh("ls /root").split() == []
    assert "after" not in lab.control_plane.request("GET", node_path)["metadata"]["labels"]
    assert clock_error(node) < 2, "a woken machine has the time of today"
