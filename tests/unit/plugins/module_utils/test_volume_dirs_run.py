# SPDX-License-Identifier: GPL-3.0-or-later
"""The way of a directory: intended, quarantined, brought back or purged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.clusterkit.storage.tests.server_disk import (
    CLUSTER,
    OTHER_CLUSTER,
    World,
    content,
    objects,
    tree,
)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path, mounts=False)


@pytest.fixture
def ready(world: World) -> World:
    assert world.present().changed
    assert not world.present().changed
    return world


def states(outcome: Any) -> list[str]:
    return [item["state"] for item in outcome.items]


def test_volume_to_quarantine_and_back(ready: World) -> None:
    volume = ready.volume()
    volume.chmod(0o2777)
    before, around = content(volume), tree(ready.folder, volume, ready.own)
    step = ready.of_volume(volume, reason="Released for 9 days", objects=objects())

    refused = ready.run("quarantined", step)
    assert states(refused) == ["refused"] and "no open intent" in refused.problem and volume.exists()

    for _twice in range(2):
        assert ready.run("intended", step, check_mode=True).changed
        assert ready.info()["intents"] == []
    assert states(ready.run("intended", step, by="alice")) == ["changed"]
    assert states(ready.run("intended", step, by="alice")) == ["unchanged"]
    (intent,) = ready.info()["intents"]
    assert intent["objects"] == objects() and intent["directory"] == str(volume) and not intent["restored"]

    assert ready.run("quarantined", step, check_mode=True).diff["before"] == (
        f"{volume} (inode {step['precondition']['inode']})\n"
    )
    assert volume.exists() and ready.info()["quarantined"] == []
    outcome = ready.run("quarantined", step)
    assert states(outcome) == ["changed"] and not volume.exists()
    assert ready.info()["intents"] == []
    assert states(ready.run("quarantined", step)) == ["unchanged"]
    (entry,) = ready.info(objects=True)["quarantined"]
    assert entry["entry"] == outcome.items[0]["entry"]
    assert entry["objects"] == objects() and entry["reason"] == "Released for 9 days"
    assert content(ready.trash / entry["entry"] / "data") == before
    manifest = json.loads((ready.trash / entry["entry"] / "manifest.json").read_text())
    assert (manifest["mode"], manifest["uid"], manifest["schema"]) == ("2777", 0, 1)

    back = ready.entry()
    assert states(ready.run("restored", back, check_mode=True)) == ["changed"] and not volume.exists()
    assert states(ready.run("restored", back)) == ["changed"]
    assert content(volume) == before and list(ready.trash.iterdir()) == []
    assert states(ready.run("restored", {**back, "directory": str(volume)})) == ["unchanged"]
    (intent,) = ready.info()["intents"]
    assert intent["restored"] and intent["objects"] == objects()
    assert states(ready.run("closed", step)) == ["changed"]
    assert states(ready.run("closed", step)) == ["unchanged"]
    assert ready.info()["intents"] == []
    assert tree(ready.folder, volume, ready.own) == around
    journal = [json.loads(line) for line in (ready.own / "journal.jsonl").read_text().splitlines()]
    assert [(line["asked"], line["result"]) for line in journal] == [
        *(("quarantined", "refused"), ("intended", "changed"), ("quarantined", "changed")),
        *(("restored", "changed"), ("closed", "changed")),
    ]


def test_purge_after_retention_only(ready: World) -> None:
    volume = ready.volume()
    around = tree(ready.folder, volume, ready.own)
    step = ready.quarantined(volume)
    early = ready.run("purged", step)
    assert states(early) == ["refused"] and "the retention is 14.0 days" in early.problem
    ready.clock = ready.places.now() + 13.9 * 86400
    assert states(ready.run("purged", step)) == ["refused"]
    ready.clock += 0.2 * 86400
    assert states(ready.run("purged", step, check_mode=True)) == ["changed"]
    assert len(list(ready.trash.iterdir())) == 1
    assert states(ready.run("purged", step)) == ["changed"]
    assert list(ready.trash.iterdir()) == []
    assert states(ready.run("purged", step)) == ["unchanged"]
    assert tree(ready.folder, volume, ready.own) == around


def test_purge_now_for_a_full_disk(ready: World) -> None:
    step = ready.quarantined(ready.volume())
    assert states(ready.run("purged", step, allow_purge_now=True)) == ["changed"]


def test_content_of_a_volume_that_is_an_export_of_its_own(ready: World) -> None:
    """The directory, its owner and its mode stay; `.clusterkit` in it, too."""
    volume = ready.volume("static")
    volume.chmod(0o777)
    inode, before = volume.stat().st_ino, content(volume)
    step = ready.of_volume(volume, scope="content", objects=objects())
    ready.run("intended", step)
    assert states(ready.run("quarantined", step)) == ["changed"]
    assert list(volume.iterdir()) == [] and volume.stat().st_ino == inode and volume.stat().st_mode & 0o777 == 0o777
    assert states(ready.run("quarantined", step)) == ["unchanged"]
    (volume / "file").write_text("of the next tenant")
    back = ready.entry()
    outcome = ready.run("restored", back)
    assert states(outcome) == ["failed"] and "'file' is there already" in outcome.problem
    assert (volume / "file").read_text() == "of the next tenant" and (volume / "sub").exists()
    (volume / "file").unlink()
    assert states(ready.run("restored", ready.entry())) == ["changed"]
    after = content(volume)
    assert after.pop("")[0] == before.pop("")[0] and after == before


def test_content_of_a_share_that_holds_the_folder_itself(ready: World) -> None:
    step = ready.of_volume(ready.share, scope="content", objects=objects())
    ready.run("intended", step)
    assert states(ready.run("quarantined", step)) == ["changed"]
    assert [path.name for path in ready.share.iterdir()] == [".clusterkit"]
    assert ready.info()["directories"] == []


def test_nothing_without_the_note_of_the_cluster(world: World) -> None:
    step = world.step(world.volume())
    assert "has no owner file" in world.run("quarantined", step).problem
    assert not world.own.exists()
    world.present()
    assert "is none of those that use" in world.run("quarantined", step, cluster_uid=OTHER_CLUSTER).problem
    assert states(world.run("quarantined", step)) == ["changed"]
    assert "belongs to the cluster" in world.run("restored", world.entry(), cluster_uid=OTHER_CLUSTER).problem
    assert world.run("present", clusters=[OTHER_CLUSTER]).changed
    assert world.info()["shares"][0]["clusters"] == [OTHER_CLUSTER, CLUSTER]


def test_open_files(ready: World) -> None:
    volume = ready.volume()
    step = ready.step(volume)
    ready.open_by(volume / "sub/deeper/other")
    outcome = ready.run("quarantined", step)
    assert states(outcome) == ["refused"] and "is open by 10.0.0.7:832" in outcome.problem
    listed = ready.info(open_state=True, only_for=[str(volume), str(ready.share / "neighbour")])
    assert {Path(one["path"]).name: one["open_by"] for one in listed["directories"]} == {
        "neighbour": [],
        "volume": ["10.0.0.7:832"],
    }
    (ready.nfsd / "clients/7/states").write_text("")
    step = ready.quarantined(volume)
    ready.open_by(ready.trash / step["entry"] / "data/file")
    assert "is open by" in ready.run("purged", step, allow_purge_now=True).problem


def test_open_state_that_nobody_knows(ready: World) -> None:
    (ready.nfsd / "clients").rmdir()
    step = ready.step(ready.volume())
    assert "is not known on this host" in ready.run("quarantined", step).problem
    assert states(ready.run("quarantined", step, allow_unknown_open_state=True)) == ["changed"]


def test_clients_of_version_3_are_named_as_unknowable(ready: World) -> None:
    (ready.nfsd / "versions").write_text("+3 +4\n")
    (warning,) = ready.run("quarantined", ready.step(ready.volume())).warnings
    assert "NFSv3 have open cannot be known" in warning


def test_one_stale_step_fails_alone(ready: World) -> None:
    good, bad = ready.volume("good"), ready.volume("bad")
    steps = [ready.step(good), ready.step(bad, precondition={"device": bad.stat().st_dev, "inode": 1})]
    around = tree(ready.folder, good, ready.own)
    outcome = ready.run("quarantined", *steps)
    assert states(outcome) == ["changed", "stale"]
    assert "inode 1 expected" in outcome.problem
    assert tree(ready.folder, good, ready.own) == around
