# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role left, read from the kernel, systemd and the files."""

from __future__ import annotations

from typing import Any

testinfra_hosts = ["ansible://nfs_clients"]

PLACES = "/data/client"


def mounts(host: Any) -> dict[str, list[list[str]]]:
    found: dict[str, list[list[str]]] = {}
    for line in host.check_output("cat /proc/self/mountinfo").splitlines():
        left, _separator, right = line.partition(" - ")
        found.setdefault(left.split()[4], []).append([*left.split()[5].split(","), *right.replace(" ", ",").split(",")])
    return found


def test_every_mount_is_the_wanted_one_with_the_wanted_options(host: Any) -> None:
    found = mounts(host)
    expected = {
        "yml": {"soft", "rsize=8192", "timeo=300"},
        "data": {"hard", "vers=4.1", "timeo=300"},
        "cfg": {"ro", "timeo=300"},
        "log": {"acregmin=5", "timeo=300"},
    }
    for name, options in expected.items():
        (words,) = found[f"{PLACES}/{name}"]
        assert f"192.168.77.11:/nfs/client/{name}" in words
        assert options <= set(words), (name, words)


def test_fstab_has_what_the_boot_needs(host: Any) -> None:
    lines = [line.split() for line in host.check_output("cat /etc/fstab").splitlines()]
    wanted = {line[1]: line[3] for line in lines if line[1].startswith(PLACES)}
    assert set(wanted) == {f"{PLACES}/{name}" for name in ("yml", "data", "cfg", "web")}, "log is for now only"
    assert wanted[f"{PLACES}/cfg"] == "ro,_netdev"
    assert wanted[f"{PLACES}/web"] == "x-systemd.automount,x-systemd.idle-timeout=600"


def test_the_automount_is_armed_and_works(host: Any) -> None:
    assert host.check_output("systemctl is-active data-client-web.automount") == "active"
    host.check_output(f"ls {PLACES}/web")
    assert any("192.168.77.11:/nfs/client/web" in words for words in mounts(host)[f"{PLACES}/web"])


def test_what_only_version_3_needs_is_off(host: Any) -> None:
    units = "rpcbind.service rpcbind.socket rpc-statd.service"
    states = host.check_output(f"systemctl show -p LoadState,ActiveState --value {units}").split()
    assert states == ["masked", "inactive"] * 3
    assert ":111 " not in host.check_output("ss -Hlntu")


def test_each_client_has_an_identifier_of_its_own(host: Any) -> None:
    (line,) = [
        line
        for line in host.check_output("cat /etc/modprobe.d/clusterkit-nfs.conf").splitlines()
        if line.startswith("options ")
    ]
    assert len(line.removeprefix("options nfs nfs4_unique_id=")) == 36
