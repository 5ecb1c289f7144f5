# SPDX-License-Identifier: GPL-3.0-or-later
"""The collection in somebody else's hands: other names, single roles in their playbooks, hosts as images bring them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from .conftest import Play, play


@pytest.mark.parametrize(
    "arguments",
    [
        ["--check", "--tags=servers"],
        pytest.param(["--check"], marks=pytest.mark.long),
        pytest.param(["--diff"], marks=pytest.mark.long),
    ],
    ids=" ".join,
)
@pytest.mark.usefixtures("lab")
def test_other_host_and_group_names(
    arguments: list[str], own_inventory: Callable[..., Path], look: Callable[[], Any]
) -> None:
    def rename(hosts: dict[str, Any]) -> None:
        children = hosts["all"]["children"]
        servers, clients = children.pop("nfs_servers")["hosts"], children.pop("nfs_clients")["hosts"]
        children["filers"] = {"hosts": {"tank": servers["server1"]}}
        children["workers"] = {"hosts": {"red": clients["node1"], "blue": clients["node2"]}}
        hosts["all"]["vars"] |= {"storage_servers_group": "filers", "storage_nodes_group": "workers"}

    folder = own_inventory(rename)
    # The example's variables of the two groups, under the groups' new names.
    for old, new in (("nfs_servers", "filers"), ("nfs_clients", "workers")):
        if (folder / "group_vars" / f"{old}.yml").exists():
            (folder / "group_vars" / f"{old}.yml").rename(folder / "group_vars" / f"{new}.yml")
    before = look()
    run = play("clusterkit.storage.site", *arguments, inventory=folder)
    assert run.status == 0, run.output[-5000:]
    assert [run.recap(h)["changed"] for h in ("tank", "red", "blue", "localhost")] == [0, 0, 0, 0]
    assert look() == before


def test_one_role_alone(tmp_path: Path, restored_for_all: Any) -> None:
    """Ten lines, no facts gathered, facts not injected as variables."""
    playbook = tmp_path / "mine.yml"
    tasks = [
        {
            "name": "Mount the web content",
            "ansible.builtin.include_role": {"name": "clusterkit.storage.nfs_client"},
            "vars": {"nfs_client_mounts": [{"src": "192.168.77.11:/nfs/k8s/web", "path": "/srv/www/site one"}]},
        }
    ]
    playbook.write_text(yaml.safe_dump([{"name": "Mine", "hosts": "node1", "gather_facts": False, "tasks": tasks}]))
    first = play(playbook, ANSIBLE_INJECT_FACT_VARS="false")
    assert first.status == 0, first.output[-5000:]
    assert first.recap("node1")["changed"] >= 1
    assert "/srv/www/site" in restored_for_all.guest("node1").ssh("findmnt -t nfs,nfs4 -o TARGET")
    assert play(playbook, ANSIBLE_INJECT_FACT_VARS="false").recap("node1")["changed"] == 0
    assert "/data/k8s/cfg" in restored_for_all.guest("node1").ssh("findmnt -t nfs,nfs4 -o TARGET"), (
        "foreign mounts stay"
    )


def check(folder: Path, **packages: list[str]) -> Play:
    plays = []
    for role, host in (("nfs_server", "server1"), ("nfs_client", "node1")):
        values = {f"{role}_packages": packages[role]} if role in packages else {}
        tasks = [{"name": role, "ansible.builtin.include_role": {"name": f"clusterkit.storage.{role}"}, "vars": values}]
        plays.append({"name": role, "hosts": host, "gather_facts": False, "tasks": tasks})
    playbook = folder / "check.yml"
    playbook.write_text(yaml.safe_dump(plays))
    return play(playbook, "--check")


# One role is asked for a package that is not installed, the other one for what is.
@pytest.mark.parametrize("role", ["nfs_client", pytest.param("nfs_server", marks=pytest.mark.long)])
def test_check_mode_without_package_lists(role: str, tmp_path: Path, restored_for_all: Any) -> None:
    """apt fails in check mode on what is not installed."""
    for name in ("server1", "node1"):
        restored_for_all.guest(name).ssh("rm -rf /var/lib/apt/lists/*")
    usual = {"nfs_server": "nfs-kernel-server", "nfs_client": "nfs-common"}[role]
    done = check(tmp_path, **{role: [usual, "quota"]})
    assert done.status == 0, done.output[-3000:]
    assert done.words.count("apt has no package lists yet") == 1
    assert done.recap("node1")["changed"] == (1 if role == "nfs_client" else 0)
