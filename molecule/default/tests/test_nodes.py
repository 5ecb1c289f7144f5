# SPDX-License-Identifier: GPL-3.0-or-later
"""What an operator finds on the nodes after the bootstrap."""

from __future__ import annotations

from typing import Any

testinfra_hosts = ["ansible://nfs_clients"]

MOUNTS = ["yml", "data", "cfg", "log"]


def test_nodes_have_the_mounts_now_and_after_a_reboot(host: Any) -> None:
    live = host.check_output("findmnt -rn -t nfs,nfs4 -o SOURCE,TARGET").splitlines()
    wanted = [f"192.168.77.11:/nfs/k8s/{name} /data/k8s/{name}" for name in MOUNTS]
    assert set(wanted) <= set(live)
    fstab = [line.split()[:2] for line in host.check_output("cat /etc/fstab").splitlines()]
    assert all(line.split() in fstab for line in wanted)


def test_nodes_can_write(host: Any) -> None:
    host.check_output("touch /data/k8s/cfg/test-$(hostname) && rm /data/k8s/cfg/test-$(hostname)")
