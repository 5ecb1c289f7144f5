# SPDX-License-Identifier: GPL-3.0-or-later
"""The settings in force on a real server, read from the kernel and from systemd."""

from __future__ import annotations

from typing import Any

testinfra_hosts = ["ansible://nfs_servers"]


def test_values_in_force(host: Any) -> None:
    words = host.check_output(
        "cd /proc/fs/nfsd; cat threads nfsv4gracetime nfsv4leasetime; echo $(cat versions); nfsidmap -d"
    ).splitlines()
    assert words[:3] == ["5", "20", "20"]
    assert {"-3", "-4.0", "+4.1", "+4.2"} <= set(words[3].split()), "+4 alone would mean 4.0, too"
    assert words[4] == "lab.example"


def test_rpcbind_and_statd_are_really_off(host: Any) -> None:
    units = "rpcbind.service rpcbind.socket rpc-statd.service"
    states = host.check_output(f"systemctl show -p LoadState,ActiveState --value {units}").split()
    assert states == ["masked", "inactive"] * 3
    assert ":111 " not in host.check_output("ss -Hlntu")


def test_exports_wait_for_their_disk(host: Any) -> None:
    show = host.check_output("systemctl show nfs-server -p Wants,After,Requires,RequiresMountsFor")
    found = dict(line.split("=", 1) for line in show.splitlines())
    assert "nfs.mount" in found["Wants"].split() and "nfs.mount" in found["After"].split()
    assert "nfs.mount" not in found["Requires"].split()
    assert "mountpoint=/nfs" in host.check_output("cat /var/lib/nfs/etab")


def test_options_of_the_export_and_of_the_client(host: Any) -> None:
    table = host.check_output("grep ^/nfs/k8s/data /var/lib/nfs/etab")
    assert "192.168.77.0/24(rw," in table and "127.0.0.1(ro," in table
