# SPDX-License-Identifier: GPL-3.0-or-later
"""From 60 volumes in all classes to what nobody needs, and back: a real API, a real file system, real playbooks."""

from __future__ import annotations

import json
import shutil
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from .cluster import Cluster
from .disk import SERVER, Disk, nfs, on_server

# A file system of its own is made, and 60 volumes on it.
pytestmark = pytest.mark.long

OTHER_CLUSTER = "00000000-8a9e-4b55-9a0e-2f1f7f1a9c11"
CLEANUP, UNDELETE, PURGE = (f"clusterkit.storage.{name}" for name in ("cleanup", "undelete", "purge"))


def csi(name: str) -> dict[str, Any]:
    attributes = {"server": SERVER, "share": "/nfs/k8s", "subdir": name}
    handle = f"{SERVER}#/nfs/k8s#{name}##"
    return {"source": {"csi": {"driver": "nfs.csi.k8s.io", "volumeHandle": handle, "volumeAttributes": attributes}}}


class Volumes:
    """60 volumes, and what each of their directories is to be called."""

    def __init__(self, cluster: Cluster, disk: Disk, folder: Path) -> None:
        self.cluster = cluster
        self.disk = disk
        self.classes: dict[str, str] = {}
        self.go: set[str] = set()  # names of volumes
        self.count = 0
        self._released()
        self._others()
        self.listing = self._second_cluster(folder)

    def make(self, name: str, path: str, kind: str, source: dict[str, Any] | None = None, **more: Any) -> None:
        self.cluster.make_volume(name, **(source or nfs(f"/nfs/k8s/{path}")), **more)
        self.count += 1
        self.classes[path] = kind
        if kind != "missing":
            self.disk.fill(path)

    def _released(self) -> None:
        names = []
        for number in range(20):
            self.make(f"rel-{number}", f"rel-{number}", "released", claim=("default", f"rel-{number}"))
            names.append(f"rel-{number}")
        for number in range(5):
            self.make(f"nested-{number}", f"team/n-{number}", "released", claim=("default", f"nested-{number}"))
            name = f"csi-{number}"
            self.make(name, name, "released", csi(name), claim=("default", name))
            names += [f"nested-{number}", name]
        for number in range(3):
            name = f"failed-{number}"
            self.make(name, name, "failed", policy="Delete", claim=("default", name))
            names.append(name)
        self.make("whole", "own", "released", nfs("/nfs/own"), claim=("default", "whole"))
        (self.disk.own / "data").mkdir()
        (self.disk.own / "data/file").write_text("of the whole export\n")
        shutil.rmtree(self.disk.share / "own")
        self.go = {*names, "whole"}
        self.classes |= {"team": "parent", "own/data": "shared"}
        # Released as well, but not to go.
        self.cluster.namespace("vault", **{"storage.clusterkit/protected": "true"})
        for number in range(2):
            self.make(f"vault-{number}", f"vault-{number}", "released", claim=("vault", f"v-{number}"))
            self.make(f"keep-{number}", f"keep-{number}", "foreign", claim=("default", f"keep-{number}"))
            for twin in "ab":
                self.make(f"twin-{number}-{twin}", f"twin-{number}", "shared", claim=("default", f"t-{number}-{twin}"))
        for number in range(3):
            self.make(f"lost-{number}", f"lost-{number}", "missing", claim=("default", f"lost-{number}"))
        self.cluster.wait(
            lambda: all(one["status"].get("phase") in ("Released", "Failed") for one in self.cluster.volumes().values())
        )

    def _others(self) -> None:
        for number in range(5):
            self.make(f"free-{number}", f"free-{number}", "available")
            self.make(f"used-{number}", f"used-{number}", "bound", storage_class=f"used-{number}")
            self.cluster.make_claim(f"used-{number}", storage_class=f"used-{number}")
        self.make("leaving", "leaving", "deleting", storage_class="leaving")
        self.cluster.make_claim("leaving", storage_class="leaving")
        for name in ("leaving", *(f"used-{number}" for number in range(5))):
            self.cluster.wait(partial(self._is_bound, name))
        self.cluster.done("DELETE", "/api/v1/persistentvolumes/leaving")
        for number in range(3):
            self.classes[f"archived-{number}"] = "archived"
            self.classes[f"nobody-{number}"] = "orphan"
            self.disk.fill(f"archived-{number}", f"nobody-{number}")

    def _is_bound(self, name: str) -> bool:
        return self.cluster.phase(name) == "Bound"

    def _second_cluster(self, folder: Path) -> Path:
        """What pv_info wrote there, of volumes on the same share."""
        names = [f"theirs-{number}" for number in range(4)]
        for name in names:
            self.make(name, name, "foreign")
        file = folder / "theirs.jsonl"
        self.cluster.direct("pv_info", plan_for="cleanup", dest=str(file))
        header, *records = [json.loads(line) for line in file.read_text().splitlines()]
        records = [one for one in records if one.get("name") in names]
        header |= {"cluster_uid": OTHER_CLUSTER, "records": len(records), "total": len(records)}
        # The run would ask that cluster after it has listed the directories.
        header["listed_at"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600))
        file.write_text("".join(f"{json.dumps(one)}\n" for one in [header, *records]))
        for name in names:
            self.cluster.done("DELETE", f"/api/v1/persistentvolumes/{name}")
        return file


def test_sixty_volumes_are_told_apart_cleaned_up_and_brought_back(empty: Cluster, disk: Disk, tmp_path: Path) -> None:
    world = Volumes(empty, disk, tmp_path)
    assert world.count == 60
    uid = empty.done("GET", "/api/v1/namespaces/kube-system")["metadata"]["uid"]
    made = on_server(
        "volume_dirs", state="present", shares=[str(disk.share), str(disk.own)], clusters=[uid, OTHER_CLUSTER]
    )
    assert made["changed"], made
    disk.age()
    disk.fill("fresh")
    world.classes["fresh"] = "foreign"
    report, plan = tmp_path / "report.jsonl", tmp_path / "plan.json"
    given = {
        "storage_servers": disk.servers,
        "cleanup_released_for": "0s",
        "cleanup_exclude": "keep-*",
        "cleanup_orphans": True,
        "cleanup_archives": True,
        "cleanup_other_listings": [str(world.listing)],
        "cleanup_max_changes": "100%",
        "cleanup_report": str(report),
        "cleanup_plan_dest": str(plan),
        "cleanup_allow_unknown_open_state": True,
    }
    before, volumes = disk.trees(), empty.volumes()

    # Nothing is done without a word.
    shown = empty.play(CLEANUP, **given)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    told = {one["path"]: one for one in map(json.loads, report.read_text().splitlines())}
    found = {
        path.removeprefix(f"{disk.share}/").removeprefix(f"{disk.place}/"): one["class"] for path, one in told.items()
    }
    assert found == world.classes
    assert (disk.trees(), empty.volumes()) == (before, volumes)

    # Exactly what was planned goes.
    done = empty.play(CLEANUP, cleanup_plan_file=str(plan), cleanup_allow_unknown_open_state=True)
    assert done.returncode == 0, done.stdout + done.stderr
    others = {name for name, kind in world.classes.items() if kind in ("orphan", "archived")}
    assert set(volumes) - set(empty.volumes()) == world.go
    manifests = disk.quarantined()
    assert {one["volume"]["name"] for one in manifests if one["volume"]} == world.go
    assert {Path(one["directory"]).name for one in manifests if not one["volume"]} == others
    assert all(
        one["objects"]["volume"]["metadata"]["uid"] == one["volume"]["uid"] for one in manifests if one["volume"]
    )
    paths = {name: volumes[name]["spec"].get("nfs", {}).get("path", f"/nfs/k8s/{name}") for name in world.go}
    gone = {path.removeprefix("/nfs/k8s/") for path in paths.values()} | others
    after = disk.trees()
    assert {path: one for path, one in before.items() if path not in gone | {"/nfs/own", "own"}} == {
        path: one for path, one in after.items() if path != "own"
    }
    assert disk.own.is_dir()
    assert not (disk.own / "data").exists()
    assert not list((disk.share / ".clusterkit/intents").iterdir())
    assert not (disk.share / ".clusterkit/lease.json").exists()

    # Three come back, each of another kind, as they were.
    back = {"rel-0": "rel-0", "nested-0": "team/n-0", "csi-0": "csi-0"}
    undelete = {
        "storage_servers": disk.servers,
        "undelete_names": list(back),
        "undelete_make_claim": True,
        "undelete_plan_dest": str(tmp_path / "undelete.json"),
        "undelete_confirm": True,
    }
    brought = empty.play(UNDELETE, **undelete)
    assert brought.returncode == 0, brought.stdout + brought.stderr
    trees = disk.trees()
    for name, path in back.items():
        assert trees[path] == before[path]
        volume = empty.volume(name)
        assert volume["spec"]["persistentVolumeReclaimPolicy"] == "Retain"
        assert volume["spec"]["claimRef"]["name"] == name
        empty.wait_bound(name)
        assert empty.phase(name) == "Bound"
        assert empty.claim(name)["spec"]["volumeName"] == name
    assert not list((disk.share / ".clusterkit/intents").iterdir())

    # What is named is removed for good, and nothing else.
    purge = {"storage_servers": disk.servers, "purge_plan_dest": str(tmp_path / "purge.json"), "purge_confirm": True}
    purge |= {"purge_allow_unknown_open_state": True}
    left = len(disk.quarantined())
    now = empty.play(PURGE, purge_allow_now=True, purge_names="rel-1", **purge)
    assert now.returncode == 0, now.stdout + now.stderr
    assert len(disk.quarantined()) == left - 1
    assert "rel-1" not in {one["volume"]["name"] for one in disk.quarantined() if one["volume"]}
    assert {path: one for path, one in disk.trees().items() if path != "own"} == {
        path: one for path, one in trees.items() if path != "own"
    }


def test_limits_trials_and_second_runs_change_nothing(empty: Cluster, disk: Disk, tmp_path: Path) -> None:
    names = [f"old-{number}" for number in range(4)]
    for name in names:
        empty.make_volume(name, claim=("default", name), **nfs(f"/nfs/k8s/{name}"))
        disk.fill(name)
    empty.wait(lambda: {one["status"].get("phase") for one in empty.volumes().values()} == {"Released"})
    uid = empty.done("GET", "/api/v1/namespaces/kube-system")["metadata"]["uid"]
    assert on_server("volume_dirs", state="present", shares=[str(disk.share), str(disk.own)], clusters=[uid])["changed"]
    given = {
        "storage_servers": disk.servers,
        "cleanup_released_for": "0s",
        "cleanup_confirm": True,
        "cleanup_plan_dest": str(tmp_path / "plan.json"),
        "cleanup_allow_unknown_open_state": True,
    }
    before, volumes = disk.trees_flat(), empty.volumes()
    above = empty.play(CLEANUP, **given)
    assert "4 volumes and directories would be changed, but max_changes is 10%" in " ".join(above.stdout.split())
    checked = empty.play(CLEANUP, "--check", cleanup_max_changes="4", **given)
    assert checked.returncode == 0, checked.stdout
    assert (disk.trees_flat(), empty.volumes()) == (before, volumes)
    # One is bound between plan and run: it alone stays, and its intent does not.
    plan = {**given, "cleanup_confirm": False, "cleanup_max_changes": "4"}
    assert empty.play(CLEANUP, **plan).returncode == 0
    empty.patch("/api/v1/persistentvolumes/old-0", {"metadata": {"labels": {"touched": "yes"}}})
    done = empty.play(CLEANUP, cleanup_plan_file=given["cleanup_plan_dest"], cleanup_allow_unknown_open_state=True)
    assert done.returncode != 0
    assert "old-0 (stale) has changed since the plan was made" in " ".join(done.stdout.split())
    assert set(empty.volumes()) == {"old-0"}
    assert set(disk.trees_flat()) == {"old-0"}
    assert disk.trees_flat()["old-0"] == before["old-0"]
    assert not list((disk.share / ".clusterkit/intents").iterdir())
    early = empty.play(
        PURGE, storage_servers=disk.servers, purge_plan_dest=str(tmp_path / "p.json"), purge_confirm=True
    )
    assert "0 to change" in early.stdout, early.stdout + early.stderr
    assert len(disk.quarantined()) == 3
