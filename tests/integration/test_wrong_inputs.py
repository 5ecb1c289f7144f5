# SPDX-License-Identifier: GPL-3.0-or-later
"""Wrong input stops the bootstrap before anything is changed, with words that name host and variable.

Each run also asks for something new and right (an export, a class), which would be made if the run went on.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .conftest import INVENTORY, ROOT, Shared, play

EXPORT = {"path": "/nfs/k8s/new", "clients": [{"host": "192.168.77.0/24", "options": ["rw", "sync"]}]}
NEW: dict[str, Any] = {
    "nfs_server_directories": [{"path": "/nfs/k8s/new", "mode": "0777"}],
    "nfs_server_exports": [EXPORT],
    "k8s_storage_classes": [{"name": "new-class", "provisioner": "fuseim.pri/ifs"}],
}
VOLUME = {
    "server": "192.168.77.11",
    "path": "/nfs/k8s/new",
    "access_modes": ["ReadWriteMany"],
    "storage_class": "nfs",
}
CLAIM = {"namespace": "default", "access_modes": ["ReadWriteMany"], "storage_class": "nfs"}


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# Case: what it adds to which lists, and the words that name it. {LIST} is the place of the first added entry there.
Fault = tuple[dict[str, list[dict[str, Any]]], list[str]]
FAULTS: dict[str, Fault] = {
    "unknown key in an export": (
        {"nfs_server_exports": [{**EXPORT, "path": "/nfs/k8s/a", "clients_allowed": "*"}]},
        ["server1: nfs_server_exports[{nfs_server_exports}]", "clients_allowed"],
    ),
    "export path not absolute": (
        {"nfs_server_exports": [{**EXPORT, "path": "nfs/k8s/b"}]},
        ["server1: nfs_server_exports[{nfs_server_exports}].path", '"nfs/k8s/b"', "absolute"],
    ),
    "unknown export option": (
        {"nfs_server_exports": [{"path": "/nfs/k8s/c", "clients": [{"host": "192.168.77.0/24", "options": ["rww"]}]}]},
        ["server1: nfs_server_exports[{nfs_server_exports}].clients[0].options", '"rww"', 'did you mean "rw"?'],
    ),
    "volume without capacity": (
        {"k8s_storage_volumes": [{**VOLUME, "name": "without-capacity"}]},
        ["localhost: k8s_storage_volumes[{k8s_storage_volumes}]", "capacity"],
    ),
    "claim larger than its volume": (
        {
            "k8s_storage_volumes": [{**VOLUME, "name": "too-small", "capacity": "1Gi"}],
            "k8s_storage_claims": [{**CLAIM, "name": "too-large", "volume_name": "too-small", "request": "2Gi"}],
        },
        ["localhost: k8s_storage_claims[{k8s_storage_claims}]", "too-large", "2Gi", "too-small", "1Gi"],
    ),
    "claim of a class that nobody has": (
        {"k8s_storage_claims": [{**CLAIM, "name": "classless", "storage_class": "nsf", "request": "1Gi"}]},
        ["localhost: k8s_storage_claims[{k8s_storage_claims}]", "storage_class", '"nsf"'],
    ),
}


def with_faults(*cases: str) -> tuple[dict[str, Any], list[str]]:
    """The new and right things with these faults behind them, and the words that must be said."""
    values: dict[str, Any] = {name: list(entries) for name, entries in NEW.items()}
    words = []
    for case in cases:
        added, said = FAULTS[case]
        places = {name: len(values.setdefault(name, [])) for name in added}
        words += [word.format_map(places) for word in said]
        for name, entries in added.items():
            values[name] += entries
    return values, words


def refused(folder: Path, words: list[str], look: Callable[[], Any]) -> None:
    before = look()
    run = play("clusterkit.storage.site", inventory=folder)
    assert run.status != 0
    for word in words:
        assert word in run.words, f"{word!r} is not said:\n{run.output[-3000:]}"
    assert look() == before


def elsewhere(kubeconfig: Path) -> Callable[[dict[str, Any]], None]:
    def change(hosts: dict[str, Any]) -> None:
        hosts["all"]["vars"]["storage_kubeconfig"] = str(kubeconfig)

    return change


def unplug(hosts: dict[str, Any]) -> None:
    hosts["all"]["children"]["nfs_clients"]["hosts"]["node2"]["ansible_port"] = closed_port()


UNPLUGGED = ["node2: ", "refused"]


# What a claim may be is not judged while a volume cannot be read: it might be the one.
def test_all_faults_of_variables_are_named_at_once(own_inventory: Callable[..., Path], look: Callable[[], Any]) -> None:
    values, words = with_faults(*(case for case in FAULTS if case != "volume without capacity"))
    refused(own_inventory(**values), words, look)


def test_faults_of_hosts_cluster_and_variables_are_named_at_once(
    tmp_path: Path, own_inventory: Callable[..., Path], look: Callable[[], Any]
) -> None:
    kubeconfig = tmp_path / "kubeconfig"

    def both(hosts: dict[str, Any]) -> None:
        unplug(hosts)
        elsewhere(kubeconfig)(hosts)

    values, words = with_faults("volume without capacity")
    words += [*UNPLUGGED, "localhost: storage_kubeconfig", str(kubeconfig)]
    refused(own_inventory(both, **values), words, look)


def test_api_server_down(
    shared: Shared, tmp_path: Path, own_inventory: Callable[..., Path], look: Callable[[], Any]
) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    lab = shared.lab
    text = lab.control_plane.kubeconfig.read_text()
    kubeconfig.write_text(text.replace(f":{lab.plan.ports.api}", f":{closed_port()}"))
    refused(own_inventory(elsewhere(kubeconfig), **NEW), ["localhost: storage_kubeconfig", "refused"], look)


@pytest.mark.long
@pytest.mark.parametrize("case", FAULTS)
def test_one_fault_is_enough(case: str, own_inventory: Callable[..., Path], look: Callable[[], Any]) -> None:
    values, words = with_faults(case)
    refused(own_inventory(**values), words, look)


@pytest.mark.long
def test_one_unreachable_host_is_enough(own_inventory: Callable[..., Path], look: Callable[[], Any]) -> None:
    refused(own_inventory(unplug, **NEW), UNPLUGGED, look)


@pytest.mark.long
def test_a_missing_kubeconfig_is_enough(
    tmp_path: Path, own_inventory: Callable[..., Path], look: Callable[[], Any]
) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    words = ["localhost: storage_kubeconfig", str(kubeconfig)]
    refused(own_inventory(elsewhere(kubeconfig), **NEW), words, look)


def test_inventory_of_the_tests_is_the_example() -> None:
    """What the tests run is what the example inventory shows: only the hosts are the lab's."""
    for file in (ROOT / "inventory" / "group_vars").iterdir():
        assert (INVENTORY / "group_vars" / file.name).read_text() == file.read_text()
