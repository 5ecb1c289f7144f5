# SPDX-License-Identifier: GPL-3.0-or-later
"""What an operator finds in the cluster after the bootstrap, and what the run cost."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

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
    assert {h: count[h] for h in ("server1", "node1", "node2")} == {"server1": 9, "node1": 4, "node2": 4}, lines


def changes(name: str, host: str) -> list[dict[str, Any]]:
    """Of the run in check mode (changed-check), or of the one after it (changed-run)."""
    lines = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"], name).read_text().splitlines()
    return [line for line in map(json.loads, lines) if line["host"] == host]


@pytest.mark.parametrize(("host", "items"), [("server1", 2 * 9), ("node1", 4), ("node2", 4)])
def test_check_mode_named_what_the_run_then_changed_on_a_bare_machine(host: str, items: int) -> None:
    """Nine directories and exports on the server, four mounts on a node."""
    named, changed = changes("changed-check", host), changes("changed-run", host)
    # It needs the directories of the shares, which check mode does not make.
    noted = [line for line in changed if line["task"] == "Note on the shares which cluster uses them"]
    assert len(noted) == (host == "server1")
    changed = [line for line in changed if line not in noted]
    assert named == changed
    assert sum(len(line["items"]) for line in changed) == items


def test_check_mode_named_the_objects_that_the_run_then_made() -> None:
    """The API cannot try objects in namespaces that are not there yet: the run names these itself."""
    named, changed = (
        [item for line in changes(name, "localhost") for item in line["items"]]
        for name in ("changed-check", "changed-run")
    )
    assert sorted(named) == sorted(changed)
    assert "StorageClass managed-nfs-storage" in changed
