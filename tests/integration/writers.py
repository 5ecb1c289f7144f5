# SPDX-License-Identifier: GPL-3.0-or-later
"""Pods that write numbered lines all the time, and what became of each line whose fsync had returned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lab.containers import BUSYBOX
from lab.machine import Guest

ACKNOWLEDGED = "/var/lib/writers"
# A line counts once its fsync has returned; then its number is written to the node's own disk.
SCRIPT = f"""
n=0
while :; do
  n=$((n + 1))
  if echo $n | dd of=/data/lines oflag=append conv=notrunc,fsync 2>/tmp/said; then
    echo $n >> {ACKNOWLEDGED}/$HOSTNAME
  else
    echo "$n $(cat /tmp/said)" >> {ACKNOWLEDGED}/$HOSTNAME.errors
  fi
  usleep 500000
done
"""


def spec(name: str, claim: str, node: str) -> dict[str, Any]:
    """Specification of a pod that writes into the volume of a claim; its lines are known by `name`."""
    container = {
        "name": "writer",
        "image": BUSYBOX,
        "command": ["sh", "-c", SCRIPT],
        "env": [{"name": "HOSTNAME", "value": name}],
        "volumeMounts": [{"name": "data", "mountPath": "/data"}, {"name": "acks", "mountPath": ACKNOWLEDGED}],
    }
    return {
        "nodeName": node,
        "terminationGracePeriodSeconds": 5,
        "containers": [container],
        "volumes": [
            {"name": "data", "persistentVolumeClaim": {"claimName": claim}},
            {"name": "acks", "hostPath": {"path": ACKNOWLEDGED, "type": "DirectoryOrCreate"}},
        ],
    }


def forget(nodes: Sequence[Guest]) -> None:
    """Begin anew: what earlier pods wrote to the disks of the nodes is removed."""
    for node in nodes:
        node.ssh(f"rm -rf {ACKNOWLEDGED}; mkdir {ACKNOWLEDGED}")


def acknowledged(nodes: Sequence[Guest]) -> dict[str, list[str]]:
    """Numbers of the lines by name; and what went wrong, by name with the suffix .errors."""
    found: dict[str, list[str]] = {}
    for node in nodes:
        for line in node.ssh(f"find {ACKNOWLEDGED} -type f -exec grep -H '' {{}} +").splitlines():
            path, _colon, number = line.partition(":")
            found.setdefault(Path(path).name, []).append(number)
    return found


def written(server: Guest, directories: Mapping[str, str]) -> dict[str, set[str]]:
    """Numbers of the lines by name, as the server has them; the directory of each volume is given by name."""
    names = {f"{directory}/lines": name for name, directory in directories.items()}
    found: dict[str, set[str]] = {name: set() for name in directories}
    for line in server.ssh(f"grep -H '' {' '.join(names)}").splitlines():
        path, _colon, number = line.partition(":")
        found[names[path]].add(number)
    return found


def assert_nothing_lost(acknowledged_lines: Mapping[str, list[str]], written_lines: Mapping[str, set[str]]) -> None:
    for name, numbers in written_lines.items():
        lost = set(acknowledged_lines[name]) - numbers
        assert not lost, f"{name}: {len(lost)} lines whose fsync had returned are lost: {sorted(lost)[:5]}"
