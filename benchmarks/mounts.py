# SPDX-License-Identifier: GPL-3.0-or-later
"""The role beside a loop of ansible.posix.mount: tasks, module executions and time on one client of the lab.

    make demo && python -m benchmarks.mounts [NUMBER OF MOUNTS]

The same mounts on the same machine, in one run. Counts are exact; seconds are of an emulated machine and good for
ratios only. Afterwards the lab is brought back.
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

SERVER = "192.168.77.11"
OPTIONS = "rw,hard,nfsvers=4.2"


def ways(count: int) -> dict[str, dict[str, Any]]:
    """Return the plays."""
    mounts = [{"src": f"{SERVER}:/nfs/bench/{n}", "path": f"/mnt/bench/{n}"} for n in range(count)]
    package = {"name": "Install", "ansible.builtin.package": {"name": "nfs-common"}}
    return {
        "clusterkit.storage.nfs_client": {
            "roles": ["clusterkit.storage.nfs_client"],
            "vars": {"nfs_client_mounts": [{**each, "options": [OPTIONS]} for each in mounts]},
        },
        "loop of ansible.posix.mount": {
            "tasks": [
                package,
                {
                    "name": "Mount",
                    "ansible.posix.mount": {
                        "src": "{{ item.src }}",
                        "path": "{{ item.path }}",
                        "fstype": "nfs",
                        "opts": OPTIONS,
                        "state": "mounted",
                    },
                    "loop": "{{ mounts }}",
                },
            ],
            "vars": {"mounts": mounts},
        },
    }


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    lab = Lab()
    server, node = lab.guest("server1"), lab.guest("node1")
    server.ssh(
        f"mkdir -p $(seq -f /nfs/bench/%.0f 0 {count}) && "
        "echo '/nfs/bench 192.168.77.0/24(rw,no_subtree_check)' > /etc/exports.d/bench.exports && exportfs -ra"
    )
    print(f"{count} mounts{'':21} changed: tasks modules seconds   unchanged: tasks modules seconds")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for way, content in ways(count).items():
            playbook = folder / "play.yml"
            playbook.write_text(yaml.safe_dump([{"name": way, "hosts": "node1", "gather_facts": False, **content}]))
            # Each way starts from a client without these mounts.
            node.ssh(
                "umount /mnt/bench/* 2>/dev/null; rm -rf --one-file-system /mnt/bench; sed -i '/mnt.bench/d' /etc/fstab"
            )
            figures = []
            for run_number in range(2):
                counted = folder / "modules"
                counted.unlink(missing_ok=True)
                began = time.monotonic()
                run = play(
                    playbook,
                    timeout=3600,
                    ANSIBLE_CALLBACKS_ENABLED="count_modules",
                    ANSIBLE_CALLBACK_PLUGINS=str(ROOT / "tests/callback_plugins"),
                    COUNT_MODULES_FILE=str(counted),
                )
                seconds = time.monotonic() - began
                assert run.status == 0, run.output[-3000:]
                assert (run.recap("node1")["changed"] > 0) == (run_number == 0), run.output[-3000:]
                assert int(node.ssh("grep -c ' /mnt/bench/' /proc/self/mountinfo")) == count
                modules = Counter(line.split()[0] for line in counted.read_text().splitlines())["node1"]
                tasks = len(re.findall(r"^(TASK|RUNNING HANDLER) ", run.output, re.MULTILINE))
                figures.append(f"{tasks:6} {modules:7} {seconds:7.0f}")
            print(f"{way:30} {figures[0]:>24} {figures[1]:>33}", flush=True)
    with lab.lock():
        lab.restore("bootstrapped")


if __name__ == "__main__":
    main()
