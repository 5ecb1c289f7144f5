# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands in pods around a backup, by real kubelets on both nodes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.lifecycle import Lab

from .conftest import Play, play
from .objects import IDLE, KEPT, Objects

BACKUP = "clusterkit.storage.backup"
REPOSITORY = "/srv/backups-with-commands"  # on the server of the lab
OWED = "storage.clusterkit/after"
# The volume holds a trace of what was run in which pod.
SAYS = "echo $0 $(hostname) >> /mnt/log; sync"


@pytest.fixture
def pods(restored: Lab) -> Iterator[Objects]:
    """A claim with a pod on each node, `a` and `b`, that mounts it."""
    cluster = Objects(restored)
    cluster.claim("shared", KEPT)
    cluster.volume_of("shared")
    nodes = sorted(cluster.names("/api/v1/nodes"))[:2]
    for name, node in zip("ab", nodes, strict=True):
        cluster.start(name, "shared", IDLE, nodeName=node)
    cluster.wait("both run", lambda: {phase(cluster, name) for name in "ab"} == {"Running"})
    yield cluster
    for name in "ab":
        cluster.request("DELETE", f"{cluster.pods}/{name}")
    cluster.wait("the pods are gone", lambda: not {"a", "b"} & cluster.names(cluster.pods))
    cluster.delete_claims("shared")
    restored.guest("server1").ssh(f"rm -rf {REPOSITORY}")


def phase(cluster: Objects, name: str) -> str:
    return str(cluster.request("GET", f"{cluster.pods}/{name}")["status"].get("phase"))


def back_up(before: list[str], after: list[str], **more: Any) -> Play:
    commands = [{"claim": "default/shared", "before": before, "after": after, "timeout": 20}]
    given = {
        "backup_engine": "rsync", "backup_repository": REPOSITORY, "backup_create": True,
        "backup_claims": "default/shared", "backup_commands": commands, **more,
    }  # fmt: skip
    return play(BACKUP, "-e", json.dumps(given))


def owed(cluster: Objects, pod: str = "a") -> str | None:
    found: str | None = cluster.request("GET", f"{cluster.pods}/{pod}")["metadata"].get("annotations", {}).get(OWED)
    return found


@pytest.mark.long
def test_commands_run_in_one_pod_around_the_copy(pods: Objects, restored: Lab) -> None:
    server = restored.guest("server1")
    volume = pods.volume_of("shared")
    log = f"/nfs/k8s/dpv/default-shared-{volume}/log"
    done = back_up(["sh", "-c", SAYS, "before"], ["sh", "-c", SAYS, "after"])
    assert done.status == 0, done.output[-3000:]
    assert "pod default/a, container c: commands before and after were run" in done.words
    assert server.ssh(f"cat {log}").split("\n")[:2] == ["before a", "after a"]
    # What was written before is in the generation, what was written after is not.
    assert server.ssh(f"cat {REPOSITORY}/default/{volume}/latest/data/log").strip() == "before a"
    assert owed(pods) is None

    failed = back_up(["sh", "-c", "echo no room >&2; exit 7"], ["sh", "-c", SAYS, "after"])
    assert failed.status and "before: exit status 7: no room" in failed.words, failed.output[-3000:]
    assert server.ssh(f"tail -n 1 {log}").strip() == "after a"
    slow = back_up(["sleep", "40"], ["sh", "-c", SAYS, "late"])
    assert "before: did not end within 20 s, and may still run" in slow.words, slow.output[-3000:]
    missing = back_up(["/no/such/program"], ["true"])
    assert "no such file or directory" in missing.words.lower(), missing.output[-3000:]
    assert server.ssh(f"ls {REPOSITORY}/default/{volume} | grep -c '^2'").strip() == "1"

    # What follows fails: it stays owed, and is made up for.
    left = back_up(["true"], ["sh", "-c", "test -e /mnt/repaired"])
    assert left.status and "is owed its command after: after: exit status 1" in left.words, left.output[-3000:]
    assert owed(pods)
    server.ssh(f"touch {Path(log).parent}/repaired")
    again = play(BACKUP, "-e", json.dumps({"backup_start_left": True}))
    assert again.status == 0, again.output[-3000:]
    assert owed(pods) is None
