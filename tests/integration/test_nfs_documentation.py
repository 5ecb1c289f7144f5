# SPDX-License-Identifier: GPL-3.0-or-later
"""The examples of the modules on real machines, and what they return compared with what they say they return."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from ..documentation import contradictions, examples
from .conftest import play

# The examples use names and addresses that are kept for documentation; here they are those of the lab.
HOSTS = "192.168.77.11 nfs1.example.com\n192.168.77.22 build.example.com\n"
ADDRESSES = {"192.0.2.0/24": "192.168.77.0/24", "[2001:db8::10]": "192.168.77.11"}
MORE_EXPORTS = [
    {"path": f"/srv/nfs/{name}", "clients": [{"host": "192.168.77.0/24", "options": ["rw"]}]}
    for name in ("logs", "packages")
]


def on_the_lab(module: str, **more: Any) -> list[dict[str, Any]]:
    text = json.dumps(examples(module))
    for documented, real in ADDRESSES.items():
        text = text.replace(documented, real)
    tasks: list[dict[str, Any]] = json.loads(text)
    for task in tasks:
        name = f"clusterkit.storage.{module}"
        if name in task:
            task[name] = {**(task[name] or {}), **more}
    return tasks


def run(folder: Path, host: str, tasks: list[dict[str, Any]], *arguments: str) -> list[dict[str, Any]]:
    """Run tasks on a host, and return what each of them returned."""
    registered = [{**task, "register": f"result_{number}"} for number, task in enumerate(tasks)]
    results = folder / "results.json"
    keep = {
        "name": "Keep the results",
        "ansible.builtin.copy": {
            "content": "{{ [" + ", ".join(task["register"] for task in registered) + "] | to_json }}",
            "dest": str(results),
            "mode": "0600",
        },
        "delegate_to": "localhost",
        "check_mode": False,
    }
    playbook = folder / "examples.yml"
    playbook.write_text(
        yaml.safe_dump([{"name": "Examples", "hosts": host, "gather_facts": False, "tasks": [*registered, keep]}])
    )
    done = play(playbook, *arguments)
    assert done.status == 0, done.output[-5000:]
    found: list[dict[str, Any]] = json.loads(results.read_text())
    return found


@pytest.mark.parametrize(
    "whole", [False, pytest.param(True, marks=pytest.mark.long)], ids=["once", "predicted and repeated"]
)
def test_examples_do_what_they_say_and_return_what_is_documented(whole: bool, tmp_path: Path, used: Any) -> None:
    for name in ("server1", "node1"):
        used.guest(name).ssh(f"printf '{HOSTS}' >> /etc/hosts")
    used.guest("server1").ssh("mkdir -p /srv/nfs/logs /srv/nfs/packages")
    export, withdraw = on_the_lab("nfs_exports", file="/etc/exports.d/examples.exports")
    others = {"exports": MORE_EXPORTS, "file": "/etc/exports.d/others.exports"}
    on_hosts = {
        "server1": [
            *(("nfs_directories", task) for task in on_the_lab("nfs_directories")),
            ("nfs_exports", export),
            ("nfs_exports", {"name": "More", "clusterkit.storage.nfs_exports": others}),
            *(("nfs_exports_info", task) for task in on_the_lab("nfs_exports_info")),
        ],
        "node1": [
            *(("nfs_mounts", task) for task in on_the_lab("nfs_mounts")),
            ("nfs_mounts_info", on_the_lab("nfs_mounts_info")[0]),
            *(("nfs_probe", task) for task in on_the_lab("nfs_probe")),
        ],
    }
    for host, listed in on_hosts.items():
        modules, tasks = [module for module, _task in listed], [task for _module, task in listed]
        predicted = run(tmp_path, host, tasks, "--check", "--diff") if whole else []
        first = run(tmp_path, host, tasks, "--diff")
        second = run(tmp_path, host, tasks) if whole else []
        for results in filter(None, (predicted, first, second)):
            for module, result in zip(modules, results, strict=True):
                assert result.get("skipped") or contradictions(module, result) == [], module
        if whole:
            for module, before, after, again in zip(modules, predicted, first, second, strict=True):
                assert before.get("skipped") or before["changed"] == after["changed"], module
                assert not again["changed"], module
    assert "/srv/data" in used.guest("node1").ssh("findmnt -t nfs,nfs4 -o TARGET")
    (withdrawn,) = run(tmp_path, "server1", [withdraw])
    assert withdrawn["changed"]
    assert contradictions("nfs_exports", withdrawn) == []
