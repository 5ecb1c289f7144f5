# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes for good and how much of it, volumes without a directory, and what a volume holds when it is opened."""

from __future__ import annotations

import datetime
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from .cluster import Cluster
from .disk import Disk, nfs

# A file system of its own is made for each.
pytestmark = pytest.mark.long

CLEANUP, PURGE, RECLAIM = (f"clusterkit.storage.{name}" for name in ("cleanup", "purge", "reclaim"))
LONG_AGO = "2025-01-01T00:00:00Z"


def released(cluster: Cluster, disk: Disk, *names: str) -> None:
    for name in names:
        cluster.make_volume(name, claim=("default", name), **nfs(f"/nfs/k8s/{name}"))
        disk.fill(name)
    cluster.wait(lambda: all(cluster.phase(name) == "Released" for name in names))


def in_quarantine(disk: Disk) -> set[str]:
    return {Path(one["directory"]).name for one in disk.quarantined()}


def make_older(disk: Disk, name: str, days: int) -> None:
    """As if it had been put there before so many days."""
    then = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=days)
    [path] = [one for one in (disk.share / ".clusterkit/trash").iterdir() if name in one.name]
    manifest = json.loads((path / "manifest.json").read_text())
    manifest |= {"quarantined_at": f"{then:%Y-%m-%dT%H:%M:%SZ}", "controller_time": then.timestamp()}
    (path / "manifest.json").write_text(json.dumps(manifest))


def test_a_cleanup_purges_only_if_it_is_told_to_and_no_more_than_is_said(
    empty: Cluster, noted: Disk, tmp_path: Path
) -> None:
    disk = noted
    cleanup = {
        "storage_servers": disk.servers,
        "cleanup_released_for": "0s",
        "cleanup_max_changes": "100%",
        "cleanup_plan_dest": str(tmp_path / "cleanup.json"),
        "cleanup_allow_unknown_open_state": True,
        "purge_plan_dest": str(tmp_path / "purge.json"),
        "purge_allow_unknown_open_state": True,
    }
    released(empty, disk, "eldest", "elder", "young")
    (disk.share / "eldest/large").write_bytes(b"x" * 500_000)
    (disk.share / "elder/large").write_bytes(b"x" * 2_000_000)
    done = empty.play(CLEANUP, cleanup_confirm=True, **cleanup)
    assert done.returncode == 0, done.stdout + done.stderr
    for name, days in (("eldest", 40), ("elder", 20), ("young", 1)):
        make_older(disk, name, days)
    # Without a word: the next one is put away, and nothing goes for good.
    released(empty, disk, "next")
    done = empty.play(CLEANUP, cleanup_confirm=True, **cleanup)
    assert done.returncode == 0, done.stdout + done.stderr
    assert in_quarantine(disk) == {"eldest", "elder", "young", "next"}
    assert not (tmp_path / "purge.json").exists()
    # Shown, not done.
    shown = empty.play(CLEANUP, cleanup_allow_purge=True, **cleanup)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert [one["item"] for one in json.loads((tmp_path / "purge.json").read_text())["steps"]] == ["eldest", "elder"]
    assert in_quarantine(disk) == {"eldest", "elder", "young", "next"}
    # Done, the oldest first, as far as it may.
    limit = {"purge_max_bytes": "1Mi"}
    done = empty.play(CLEANUP, cleanup_confirm=True, cleanup_allow_purge=True, **cleanup, **limit)
    assert done.returncode == 0, done.stdout + done.stderr
    assert in_quarantine(disk) == {"elder", "young", "next"}
    assert "more than max_bytes, which is 1Mi" in " ".join(done.stdout.split())
    # A cleanup that fails is not followed by a purge.
    released(empty, disk, "last")
    plan = empty.play(CLEANUP, **cleanup)
    assert plan.returncode == 0, plan.stdout + plan.stderr
    empty.patch("/api/v1/persistentvolumes/last", {"metadata": {"labels": {"touched": "yes"}}})
    given = {"cleanup_plan_file": str(tmp_path / "cleanup.json"), "cleanup_allow_purge": True}
    failed = empty.play(CLEANUP, **given, **cleanup)
    assert failed.returncode != 0
    assert "last (stale)" in failed.stdout
    assert in_quarantine(disk) == {"elder", "young", "next"}
    # The playbook itself.
    purge = {key: one for key, one in cleanup.items() if not key.startswith("cleanup")}
    done = empty.play(PURGE, purge_confirm=True, **purge)
    assert done.returncode == 0, done.stdout + done.stderr
    assert in_quarantine(disk) == {"young", "next"}
    assert empty.phase("last") == "Released"


def test_volumes_whose_directory_is_not_there_go_only_by_a_word_and_only_if_that_is_certain(
    empty: Cluster, noted: Disk, tmp_path: Path
) -> None:
    disk, names = noted, ("used", "lost", "linked", "moved", "fresh")
    released(empty, disk, *names)
    for name in names[:-1]:
        status = {"status": {"lastPhaseTransitionTime": LONG_AGO}}
        empty.patch(f"/api/v1/persistentvolumes/{name}/status", status)
    for name in ("lost", "linked", "fresh"):
        shutil.rmtree(disk.share / name)
    (disk.share / "linked").symlink_to("used")
    (disk.share / "attic").mkdir()
    (disk.share / "moved").rename(disk.share / "attic/moved")
    empty.make_volume("in-attic", claim=("default", "in-attic"), **nfs("/nfs/k8s/attic/other"))
    disk.fill("attic/other")
    cleanup = {
        "storage_servers": disk.servers,
        "cleanup_released_for": "0s",
        "cleanup_exclude": ["used", "in-attic"],
        "cleanup_max_changes": "100%",
        "cleanup_plan_dest": str(tmp_path / "plan.json"),
        "cleanup_allow_unknown_open_state": True,
        "cleanup_confirm": True,
    }
    before, volumes = disk.trees_flat(), empty.volumes()
    done = empty.play(CLEANUP, **cleanup)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (disk.trees_flat(), empty.volumes()) == (before, volumes)
    done = empty.play(CLEANUP, cleanup_missing=True, **cleanup)
    assert done.returncode == 0, done.stdout + done.stderr
    told = {one["item"]: one["reason"] for one in json.loads((tmp_path / "plan.json").read_text())["refusals"]}
    assert "is there, and is no directory" in told["linked"]
    assert "attic/moved has the name of its directory" in told["moved"]
    assert "when the directories were listed" in told["fresh"]
    assert set(volumes) - set(empty.volumes()) == {"lost"}
    [kept] = [json.loads(line) for line in (tmp_path / "plan.json.objects.jsonl").read_text().splitlines()]
    assert kept["volume"]["metadata"]["uid"] == volumes["lost"]["metadata"]["uid"]
    assert disk.trees_flat() == before
    assert disk.quarantined() == []
    assert not list((disk.share / ".clusterkit/intents").iterdir())


def test_what_a_volume_holds_is_put_away_before_it_is_opened_or_it_stays_as_it_is(
    empty: Cluster, noted: Disk, tmp_path: Path
) -> None:
    disk = noted
    released(empty, disk, "a", "b", "c", "whole")
    empty.make_volume("export", claim=("default", "export"), **nfs("/nfs/own"))
    (disk.own / "file").write_text("of the whole export\n")
    empty.make_volume("inner", claim=("default", "inner"), **nfs("/nfs/k8s/whole/inner"))
    disk.fill("whole/inner")
    empty.wait(lambda: {one["status"].get("phase") for one in empty.volumes().values()} == {"Released"})
    (disk.share / "a").chmod(0o2770)
    plan = tmp_path / "plan.json"
    wanted: dict[str, Any] = {
        "storage_servers": disk.servers,
        "reclaim_names": ["a", "b", "c", "export", "whole"],
        "reclaim_release": "open",
        "reclaim_content": "quarantine",
        "reclaim_plan_dest": str(plan),
        "reclaim_allow_unknown_open_state": True,
    }
    before, volumes = disk.trees_flat(), empty.volumes()
    shown = empty.play(RECLAIM, **wanted)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    checked = empty.play(RECLAIM, "--check", reclaim_confirm=True, **wanted)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert (disk.trees_flat(), empty.volumes(), disk.quarantined()) == (before, volumes, [])
    content = json.loads(plan.read_text())
    assert {one["item"] for one in content["steps"]} == {"a", "b", "c", "export"}
    [refused] = content["refusals"]
    assert refused["item"] == "whole"
    assert "whole is parent: holds" in refused["reason"]
    # One directory is another one by now, and one volume has changed: these two alone stay as they are.
    held = os.open(disk.share / "b", os.O_RDONLY)  # so that the new one does not get its inode
    shutil.move(disk.share / "b", tmp_path / "b")
    disk.fill("b")
    os.close(held)
    before = disk.trees_flat()
    empty.patch("/api/v1/persistentvolumes/c", {"metadata": {"labels": {"touched": "yes"}}})
    done = empty.play(RECLAIM, reclaim_plan_file=str(plan), reclaim_allow_unknown_open_state=True)
    assert done.returncode != 0
    words = " ".join(done.stdout.split())
    assert "b (refused) its content is not in quarantine" in words
    assert "c (stale) has changed since the plan was made" in words
    phases = {name: empty.phase(name) for name in ("a", "b", "c", "export", "whole", "inner")}
    assert phases == {
        **dict.fromkeys(("a", "export"), "Available"),
        **dict.fromkeys(("b", "c", "whole", "inner"), "Released"),
    }
    assert "claimRef" not in empty.volume("a")["spec"]
    assert list((disk.share / "a").iterdir()) == []
    assert (disk.share / "a").stat().st_mode & 0o7777 == 0o2770
    assert [path.name for path in disk.own.iterdir()] == [".clusterkit"]
    after = disk.trees_flat()
    assert {name: after[name] for name in after if name != "a"} == {
        name: before[name] for name in before if name != "a"
    }
    manifests = {one["volume"]["name"]: one for one in disk.quarantined()}
    assert {name: one["scope"] for name, one in manifests.items()} == {"a": "content", "export": "content"}
    assert manifests["a"]["objects"]["volume"]["spec"] == volumes["a"]["spec"]
    assert not list((disk.share / ".clusterkit/intents").iterdir())
    assert not (disk.share / ".clusterkit/lease.json").exists()
    # A claim of somebody else finds an empty volume; what was put away is there, until it is purged.
    empty.make_claim("mine", volume_name="a")
    empty.wait_bound("mine")
    [kept] = [one for one in (disk.share / ".clusterkit/trash").iterdir() if one.name.split("-")[1] == "a"]
    assert (kept / "data/file").read_text() == "content of a\n"
    # Without the word everything is as it was before there was one.
    plain = {key: one for key, one in wanted.items() if key not in ("reclaim_content", "storage_servers")}
    done = empty.play(RECLAIM, reclaim_confirm=True, **{**plain, "reclaim_names": "c"})
    assert done.returncode == 0, done.stdout + done.stderr
    assert empty.phase("c") == "Available"
    assert disk.trees_flat()["c"] == before["c"]
