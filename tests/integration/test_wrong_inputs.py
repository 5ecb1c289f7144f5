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

from .conftest import INVENTORY, ROOT, play

NEW: dict[str, Any] = {
    "nfs_server_directories": [{"path": "/nfs/k8s/new", "mode": "0777"}],
    "nfs_server_exports": [
        {"path": "/nfs/k8s/new", "clients": [{"host": "192.168.77.0/24", "options": ["rw", "sync"]}]}
    ],
    "k8s_storage_classes": [{"name": "new-class", "provisioner": "fuseim.pri/ifs"}],
}
VOLUME = {"name": "new-volume", "server": "192.168.77.11", "path": "/nfs/k8s/new", "access_modes": ["ReadWriteMany"]}
CLAIM = {"name": "new-claim", "namespace": "default", "access_modes": ["ReadWriteMany"], "storage_class": "nfs"}


def with_export(**changes: Any) -> dict[str, Any]:
    return {**NEW, "nfs_server_exports": [*NEW["nfs_server_exports"], {**NEW["nfs_server_exports"][0], **changes}]}


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


WRONG_VARIABLES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "unknown key in an export": (
        with_export(path="/nfs/k8s/other", clients_allowed="*"),
        ["server1", "nfs_server_exports[1]", "clients_allowed"],
    ),
    "export path not absolute": (
        with_export(path="nfs/k8s/other"),
        ["server1", "nfs_server_exports[1].path", '"nfs/k8s/other"', "absolute"],
    ),
    "unknown export option": (
        with_export(path="/nfs/k8s/other", clients=[{"host": "192.168.77.0/24", "options": ["rww"]}]),
        ["server1", "nfs_server_exports[1].clients[0].options", '"rww"', 'did you mean "rw"?'],
    ),
    "volume without capacity": (
        {**NEW, "k8s_storage_volumes": [{**VOLUME, "storage_class": "nfs"}]},
        ["localhost", "k8s_storage_volumes[0]", "capacity"],
    ),
    "claim larger than its volume": (
        {
            **NEW,
            "k8s_storage_volumes": [{**VOLUME, "storage_class": "nfs", "capacity": "1Gi"}],
            "k8s_storage_claims": [{**CLAIM, "volume_name": "new-volume", "request": "2Gi"}],
        },
        ["localhost", "k8s_storage_claims[0]", "new-claim", "2Gi", "new-volume", "1Gi"],
    ),
    "claim of a class that nobody has": (
        {**NEW, "k8s_storage_claims": [{**CLAIM, "storage_class": "nsf", "request": "1Gi"}]},
        ["localhost", "k8s_storage_claims[0]", "storage_class", '"nsf"'],
    ),
}


@pytest.mark.parametrize("case", WRONG_VARIABLES)
def test_wrong_variable(case: str, own_inventory: Callable[..., Path], look: Callable[[], Any]) -> None:
    values, words = WRONG_VARIABLES[case]
    before = look()
    run = play("clusterkit.storage.site", inventory=own_inventory(**values))
    assert run.status != 0
    for word in words:
        assert word in run.words, f"{word!r} is not said:\n{run.output[-3000:]}"
    assert look() == before


def test_two_faults_are_reported_together(own_inventory: Callable[..., Path]) -> None:
    faults = {**with_export(path="nfs/k8s/other"), "k8s_storage_volumes": [{**VOLUME, "storage_class": "nfs"}]}
    run = play("clusterkit.storage.site", inventory=own_inventory(**faults))
    assert run.status != 0
    assert "nfs_server_exports[1].path" in run.words and "k8s_storage_volumes[0]" in run.words


def test_unreachable_host(own_inventory: Callable[..., Path], look: Callable[[], Any]) -> None:
    def unplug(hosts: dict[str, Any]) -> None:
        hosts["all"]["children"]["nfs_clients"]["hosts"]["node2"]["ansible_port"] = closed_port()

    before = look()
    run = play("clusterkit.storage.site", inventory=own_inventory(unplug, **NEW))
    assert run.status != 0
    assert "node2" in run.words and "refused" in run.words
    assert look() == before


@pytest.mark.parametrize("case", ["no kubeconfig", "API server down"])
def test_cluster_not_reached(
    case: str, lab: Any, tmp_path: Path, own_inventory: Callable[..., Path], look: Callable[[], Any]
) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    if case == "API server down":
        text = lab.control_plane.kubeconfig.read_text()
        kubeconfig.write_text(text.replace(f":{lab.plan.ports.api}", f":{closed_port()}"))

    def elsewhere(hosts: dict[str, Any]) -> None:
        hosts["all"]["vars"]["storage_kubeconfig"] = str(kubeconfig)

    before = look()
    run = play("clusterkit.storage.site", inventory=own_inventory(elsewhere, **NEW))
    assert run.status != 0
    words = {"no kubeconfig": ["localhost", "storage_kubeconfig", str(kubeconfig)], "API server down": ["refused"]}[
        case
    ]
    for word in words:
        assert word in run.words, f"{word!r} is not said:\n{run.output[-3000:]}"
    assert look() == before


def test_inventory_of_the_tests_is_the_example() -> None:
    """What the tests run is what the example inventory shows: only the hosts are the lab's."""
    for file in (ROOT / "inventory" / "group_vars").iterdir():
        assert (INVENTORY / "group_vars" / file.name).read_text() == file.read_text()
