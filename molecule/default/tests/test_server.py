# SPDX-License-Identifier: GPL-3.0-or-later
"""What an operator finds on the server after the bootstrap."""

from __future__ import annotations

from typing import Any

testinfra_hosts = ["ansible://nfs_servers"]

SHARES = ["yml", "data", "cfg", "log", "web", "spv_001", "spv_002", "spv_003", "dpv"]


def test_server_exports_what_the_inventory_says(host: Any) -> None:
    table = host.check_output("cat /var/lib/nfs/etab")
    paths = {line.split("\t")[0] for line in table.splitlines()}
    assert {f"/nfs/k8s/{name}" for name in SHARES} <= paths
    assert "*(" not in table, "an export to the whole world was not asked for"


def test_server_serves_after_a_reboot(host: Any) -> None:
    states = host.check_output("systemctl is-enabled rpcbind.socket nfs-server.service; systemctl is-active nfs-server")
    assert states.split() == ["enabled", "enabled", "active"]


def test_directories_have_their_mode(host: Any) -> None:
    modes = host.check_output("stat -c '%a %n' " + " ".join(f"/nfs/k8s/{name}" for name in SHARES))
    assert modes.splitlines() == [f"777 /nfs/k8s/{name}" for name in SHARES]


def test_verify_left_nothing_on_the_server(host: Any) -> None:
    assert host.check_output("ls -A /nfs/k8s/dpv /nfs/k8s/spv_00*").split() == [
        "/nfs/k8s/dpv:",
        *(f"/nfs/k8s/spv_00{n}:" for n in (1, 2, 3)),
    ]
