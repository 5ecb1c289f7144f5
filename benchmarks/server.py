# SPDX-License-Identifier: GPL-3.0-or-later
"""The role beside what people write instead: tasks, module executions and time on one server of the lab.

    make demo && python -m benchmarks.server [NUMBER OF EXPORTS]

A template with a handler and a loop over directories, and a loop of lineinfile, on the same machine in one run.
Counts are exact; seconds are of an emulated machine and good for ratios only. Afterwards the lab is brought back.
"""

from __future__ import annotations

import re
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from lab.lifecycle import Lab
from tests.integration.conftest import play

ROOT = Path(__file__).resolve().parents[1]

OPTIONS = "rw,sync,no_subtree_check"
TEMPLATE = "{% for path in paths %}{{ path }} 192.168.77.0/24(" + OPTIONS + ")\n{% endfor %}"


def directories() -> dict[str, Any]:
    return {
        "name": "Make the directories",
        "ansible.builtin.file": {"path": "{{ item }}", "state": "directory", "mode": "0777"},
        "loop": "{{ paths }}",
    }


def ways(folder: Path, paths: list[str]) -> dict[str, dict[str, Any]]:
    """Return the plays."""
    (folder / "exports.j2").write_text(TEMPLATE)
    exported = [{"path": path, "clients": [{"host": "192.168.77.0/24", "options": [OPTIONS]}]} for path in paths]
    service = {"name": "Serve", "ansible.builtin.service": {"name": "nfs-server", "state": "started", "enabled": True}}
    package = {"name": "Install", "ansible.builtin.package": {"name": "nfs-kernel-server"}}
    again = {"name": "Export", "ansible.builtin.command": "exportfs -ra"}
    return {
        "clusterkit.storage.nfs_server": {
            "roles": ["clusterkit.storage.nfs_server"],
            "vars": {
                "nfs_server_directories": [{"path": path, "mode": "0777"} for path in paths],
                "nfs_server_exports": exported,
            },
        },
        "template + handler": {
            "tasks": [
                package,
                directories(),
                {
                    "name": "Write the exports",
                    "ansible.builtin.template": {"src": str(folder / "exports.j2"), "dest": "/etc/exports"},
                    "notify": "Export",
                },
                service,
            ],
            "handlers": [again],
            "vars": {"paths": paths},
        },
        "lineinfile loop": {
            "tasks": [
                package,
                directories(),
                {
                    "name": "Write the exports",
                    "ansible.builtin.lineinfile": {
                        "path": "/etc/exports",
                        "regexp": "^{{ item }} ",
                        "line": f"{{{{ item }}}} 192.168.77.0/24({OPTIONS})",
                    },
                    "loop": "{{ paths }}",
                    "notify": "Export",
                },
                service,
            ],
            "handlers": [again],
            "vars": {"paths": paths},
        },
    }


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    lab = Lab()
    print(f"{count} exports{'':18} changed: tasks modules seconds   unchanged: tasks modules seconds")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number, (way, content) in enumerate(ways(folder, []).items()):
            paths = [f"/nfs/bench{number}/e{index}" for index in range(count)]
            content = ways(folder, paths)[way]
            playbook = folder / "play.yml"
            playbook.write_text(yaml.safe_dump([{"name": way, "hosts": "server1", "gather_facts": False, **content}]))
            # Each way starts from a server without exports.
            lab.guest("server1").ssh(
                f"rm -f /etc/exports.d/*; : > /etc/exports; exportfs -ra; mkdir -p /nfs/bench{number}"
            )
            figures = []
            for _ in ("changed", "unchanged"):
                counted = folder / "modules"
                began = time.monotonic()
                run = play(
                    playbook,
                    ANSIBLE_CALLBACKS_ENABLED="count_modules",
                    ANSIBLE_CALLBACK_PLUGINS=str(ROOT / "tests/callback_plugins"),
                    COUNT_MODULES_FILE=str(counted),
                )
                seconds = time.monotonic() - began
                assert run.status == 0, run.output[-3000:]
                modules = Counter(line.split()[0] for line in counted.read_text().splitlines())["server1"]
                tasks = len(re.findall(r"^(TASK|RUNNING HANDLER) ", run.output, re.MULTILINE))
                figures.append(f"{tasks:6} {modules:7} {seconds:7.0f}")
            print(f"{way:30} {figures[0]:>24} {figures[1]:>33}")
    with lab.lock():
        lab.restore("bootstrapped")


if __name__ == "__main__":
    main()
