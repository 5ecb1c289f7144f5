# SPDX-License-Identifier: GPL-3.0-or-later
"""What an operator finds in the cluster after the bootstrap, and what the run cost."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

from lab.lifecycle import Lab


def api(path: str) -> Any:
    return Lab().control_plane.request("GET", path)


def test_static_volumes_are_bound_to_their_claims() -> None:
    volumes = {v["metadata"]["name"]: v for v in api("/api/v1/persistentvolumes")["items"]}
    bound = {n: (v["status"]["phase"], v["spec"]["claimRef"]["name"]) for n, v in volumes.items()}
    assert bound == {f"nfs-spv00{n}": ("Bound", f"nfs-pvc00{n}") for n in (1, 2, 3)}
    assert [volumes[f"nfs-spv00{n}"]["spec"]["persistentVolumeReclaimPolicy"] for n in (1, 2, 3)] == [
        "Retain",
        "Recycle",
        "Retain",
    ]


def test_class_keeps_volumes_and_its_provisioner_runs() -> None:
    classes = {c["metadata"]["name"]: c for c in api("/apis/storage.k8s.io/v1/storageclasses")["items"]}
    assert set(classes) == {"managed-nfs-storage"}, "verify left a class behind"
    assert classes["managed-nfs-storage"]["reclaimPolicy"] == "Retain"
    deployments = [
        d for d in api("/apis/apps/v1/deployments")["items"] if d["metadata"]["name"] == "nfs-client-provisioner"
    ]
    assert [d["status"].get("readyReplicas") for d in deployments] == [1]


def test_verify_left_nothing_in_the_cluster() -> None:
    names = {n["metadata"]["name"] for n in api("/api/v1/namespaces")["items"]}
    assert not {n for n in names if "verify" in n}
    assert not [p for p in api("/api/v1/pods")["items"] if "verify" in p["metadata"]["name"]]


def test_number_of_modules_of_the_second_run() -> None:
    """Each costs seconds on a host: the bill must not grow unseen."""
    lines = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"], "modules").read_text().splitlines()
    count = Counter(line.split()[0] for line in lines)
    assert {h: count[h] for h in ("server1", "node1", "node2")} == {"server1": 8, "node1": 4, "node2": 4}, lines


def test_check_mode_named_what_the_run_then_changed_on_the_bare_server() -> None:
    folder = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
    named, changed = (
        [line for line in map(json.loads, (folder / name).read_text().splitlines()) if line["host"] == "server1"]
        for name in ("changed-check", "changed-run")
    )
    assert named == changed
    assert sum(len(line["items"]) for line in changed) == 2 * 9, "nine directories, nine exports"
