# SPDX-License-Identifier: GPL-3.0-or-later
"""The life of volumes with pods that use them: what a pod wrote, and what the next pod finds."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.lifecycle import Lab

from .conftest import play, run
from .objects import KEPT, VOLUMES, Objects


def test_what_pods_find_in_volumes_that_live_on(tmp_path: Path, restored: Lab) -> None:
    server, cluster = restored.guest("server1"), Objects(restored)
    # `own` is reserved for the claim of its name, `open` opened for anybody.
    for name in ("own", "open"):
        cluster.claim(name, KEPT)
    volumes = {name: cluster.volume_of(name) for name in ("own", "open")}
    for name in volumes:
        cluster.start(f"write-{name}", name, f"mkdir -p /mnt/.hidden/deep; echo {name} > /mnt/.hidden/deep/file; sync")
    cluster.finished(*(f"write-{name}" for name in volumes))

    cluster.delete_claims(*volumes)
    cluster.wait("both are released", lambda: {cluster.phase(each) for each in volumes.values()} == {"Released"})
    run("reclaim", tmp_path, reclaim_names=volumes["own"], reclaim_release="reserved", reclaim_confirm="true")
    opened = run("reclaim", tmp_path, reclaim_names=volumes["open"], reclaim_release="open", reclaim_confirm="true")
    assert "old content" in opened.words, opened.output[-3000:]

    # A claim of the same class is first; the reserved volume is not for it, the open one may be.
    cluster.claim("stranger", KEPT)
    assert cluster.volume_of("stranger") == volumes["open"]
    cluster.claim("own", KEPT)
    assert cluster.volume_of("own") == volumes["own"]
    cluster.start("read-own", "own", "grep -qx own /mnt/.hidden/deep/file; echo again >> /mnt/.hidden/deep/file; sync")
    cluster.start("read-open", "stranger", "grep -qx open /mnt/.hidden/deep/file")
    cluster.finished("read-own", "read-open")

    # Growing needs no pod to stop; claim and volume agree, and the directory is where it was.
    cluster.start("hold", "own", "until [ -e /mnt/enough ]; do sleep 1; done; grep -qx again /mnt/.hidden/deep/file")
    run("expand", tmp_path, expand_namespaces="default", expand_names="own", expand_size="1.5Gi", expand_confirm="true")
    claim = cluster.request("GET", f"{cluster.claims}/own")
    volume = cluster.request("GET", f"{VOLUMES}/{volumes['own']}")
    sizes = {claim["status"]["capacity"]["storage"], volume["spec"]["capacity"]["storage"]}
    assert sizes == {"1536Mi"}, sizes
    server.ssh(f"touch /nfs/k8s/dpv/default-own-{volumes['own']}/enough")
    cluster.finished("hold")


@pytest.mark.long
def test_a_recycler_at_work_is_not_disturbed(tmp_path: Path, restored: Lab) -> None:
    """Released with policy Recycle: its content is being removed, so a new owner must not get it."""
    server, cluster = restored.guest("server1"), Objects(restored)
    server.ssh("cd /nfs/k8s/spv_002 && for d in $(seq 40); do mkdir -m 0777 $d && (cd $d && touch $(seq 100)); done")
    cluster.delete_claims("nfs-pvc002")
    cluster.wait("the volume is released", lambda: cluster.phase("nfs-spv002") == "Released", 60)
    done = play(
        "clusterkit.storage.reclaim",
        *("-ereclaim_names=nfs-spv002", "-ereclaim_release=open", "-ereclaim_confirm=true"),
        f"-ereclaim_plan_dest={tmp_path}/plan.json",
    )
    assert "0 to change" in done.words, done.output[-3000:]
    assert "nfs-spv002: a recycler pod is emptying it" in done.words
    cluster.wait("the volume is available", lambda: cluster.phase("nfs-spv002") == "Available")
    assert server.ssh("ls -A /nfs/k8s/spv_002") == ""
