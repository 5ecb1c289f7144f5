# SPDX-License-Identifier: GPL-3.0-or-later
"""The way of a directory: intended, quarantined, brought back or purged."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import (
    _mounts,
    _own_folder,
    _volume_dirs_quarantine,
    _volume_dirs_run,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._own_files import FolderError
from ansible_collections.clusterkit.storage.plugins.module_utils._own_folder import Places
from ansible_collections.clusterkit.storage.plugins.module_utils._times import days
from ansible_collections.clusterkit.storage.plugins.module_utils._volume_dirs import read_request
from ansible_collections.clusterkit.storage.tests.server_disk import (
    CLUSTER,
    OTHER_CLUSTER,
    World,
    content,
    objects,
    tree,
)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    # What a power cut leaves is tested elsewhere; here a busy disk would only cost time.
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)
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


def test_no_intent_for_what_cannot_be_moved(ready: World) -> None:
    """After an intent the PersistentVolume is removed: it must not be gone while its directory has to stay."""
    volume = ready.volume()
    step = ready.of_volume(volume, objects=objects())
    ready.open_by(volume / "sub/deeper/other")
    for check_mode in (True, False):
        outcome = ready.run("intended", step, check_mode=check_mode)
        assert states(outcome) == ["refused"] and "is open by 10.0.0.7:832" in outcome.problem
    (ready.nfsd / "clients").rename(ready.folder / "none")
    assert "is not known on this host" in ready.run("intended", step).problem
    assert ready.info()["intents"] == []
    assert states(ready.run("intended", step, allow_unknown_open_state=True)) == ["changed"]


def test_open_state_that_nobody_knows(ready: World) -> None:
    (ready.nfsd / "clients").rmdir()
    step = ready.step(ready.volume())
    assert "is not known on this host" in ready.run("quarantined", step).problem
    assert states(ready.run("quarantined", step, allow_unknown_open_state=True)) == ["changed"]


def test_clients_that_still_tell_what_they_have_open_are_waited_for(ready: World) -> None:
    for name, text in (("threads", "8\n"), ("v4_end_grace", "N\n")):
        (ready.nfsd / name).write_text(text)
    step = ready.step(ready.volume())
    outcome = ready.run("quarantined", step)
    assert states(outcome) == ["refused"] and "when its grace period is over" in outcome.problem
    (ready.nfsd / "v4_end_grace").write_text("Y\n")
    assert states(ready.run("quarantined", step)) == ["changed"]


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


# --- somebody is faster ------------------------------------------------------------------------------------


def at_the_last_moment(monkeypatch: pytest.MonkeyPatch, act: Callable[[], Any]) -> None:
    """Do something between the judgement of a step and its first rename."""
    rename = _volume_dirs_quarantine.rename_to_free_name
    done: list[object] = []

    def first(*arguments: Any) -> None:
        if not done:
            done.append(True)
            act()
        rename(*arguments)

    monkeypatch.setattr(_volume_dirs_quarantine, "rename_to_free_name", first)


def test_another_directory_at_the_last_moment(ready: World, monkeypatch: pytest.MonkeyPatch) -> None:
    volume = ready.volume()
    step = ready.step(volume)

    def swap() -> None:
        volume.rename(ready.share / "elsewhere")
        (ready.share / "neighbour").rename(volume)

    around = tree(ready.share / "neighbour")
    at_the_last_moment(monkeypatch, swap)
    outcome = ready.run("quarantined", step)
    assert states(outcome) == ["stale"] and "is not what was planned" in outcome.problem
    assert list(ready.trash.iterdir()) == [] and not outcome.changed
    volume.rename(ready.share / "neighbour")
    assert tree(ready.share / "neighbour") == around


def test_a_link_at_the_last_moment(ready: World, monkeypatch: pytest.MonkeyPatch) -> None:
    volume = ready.volume()
    step = ready.step(volume)

    def swap() -> None:
        volume.rename(ready.share / "elsewhere")
        volume.symlink_to(ready.outside)

    at_the_last_moment(monkeypatch, swap)
    assert states(ready.run("quarantined", step)) == ["stale"]
    assert volume.readlink() == ready.outside and list(ready.trash.iterdir()) == []


def test_taken_away_at_the_last_moment(ready: World, monkeypatch: pytest.MonkeyPatch) -> None:
    volume = ready.volume()
    step = ready.step(volume)
    at_the_last_moment(monkeypatch, lambda: volume.rename(ready.share / "elsewhere"))
    assert states(ready.run("quarantined", step)) == ["gone"]
    assert list(ready.trash.iterdir()) == []


def test_what_cannot_be_put_back_is_kept(ready: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name is taken a second time: the run fails and says where the stranger lies; the next one tries again."""
    volume = ready.volume()
    step = ready.step(volume)
    rename, calls = _volume_dirs_quarantine.rename_to_free_name, []

    def race(*arguments: Any) -> None:
        calls.append(arguments)
        if len(calls) == 1:
            volume.rename(ready.share / "elsewhere")
            (ready.share / "neighbour").rename(volume)
        else:
            volume.mkdir()
        rename(*arguments)

    monkeypatch.setattr(_volume_dirs_quarantine, "rename_to_free_name", race)
    outcome = ready.run("quarantined", step)
    assert states(outcome) == ["failed"] and "cannot be put back" in outcome.problem and "it lies in" in outcome.problem
    monkeypatch.undo()
    (entry,) = ready.trash.iterdir()
    assert (entry / "data/sub/deeper/other").exists()
    (warning,) = ready.run("closed").warnings
    assert "File exists" in warning and (entry / "data").exists()
    volume.rmdir()
    outcome = ready.run("closed")
    assert "is back in its place" in outcome.recovered[0]["action"] and outcome.changed
    assert (volume / "sub/deeper/other").exists() and list(ready.trash.iterdir()) == []


def test_the_manifest_cannot_be_flushed(ready: World, monkeypatch: pytest.MonkeyPatch) -> None:
    volume = ready.volume()
    step = ready.of_volume(volume, scope="content", objects=objects())
    ready.run("intended", step)
    calls: list[int] = []

    def fail_from(number: int) -> Callable[[Any], None]:
        def sync_all(_descriptors: Any) -> None:
            calls.append(1)
            if len(calls) >= number:
                raise OSError(errno.EIO, "Input/output error")

        return sync_all

    monkeypatch.setattr(_volume_dirs_quarantine, "sync_all", fail_from(1))
    outcome = ready.run("quarantined", step)
    assert states(outcome) == ["failed"] and "could not be flushed" in outcome.problem
    assert list(ready.trash.iterdir()) == [] and (volume / "file").exists()

    calls.clear()
    monkeypatch.setattr(_volume_dirs_quarantine, "sync_all", fail_from(2))
    outcome = ready.run("quarantined", step)
    assert states(outcome) == ["failed"] and "it was moved, but that could not be flushed" in outcome.problem
    assert outcome.changed and len(ready.info()["intents"]) == 1
    monkeypatch.undo()
    assert states(ready.run("quarantined", step)) == ["changed"]
    assert ready.info()["intents"] == [] and len(list(ready.trash.iterdir())) == 1


# --- what a killed run has left ----------------------------------------------------------------------------


def killed(ready: World, change: Callable[[Path], Any], **more: Any) -> Any:
    """Quarantine a volume, make its entry look as a killed run leaves it, and let the next run look."""
    step = ready.of_volume(ready.volume(), objects=objects(), **more)
    ready.run("intended", step)
    intent = next((ready.own / "intents").iterdir())
    kept = intent.read_text()
    assert ready.run("quarantined", step).problem == ""
    (entry,) = ready.trash.iterdir()
    change(entry)
    if more.pop("open_intent", True):
        intent.write_text(kept)
    return ready.run("closed")


def test_killed_before_the_intent_was_closed(ready: World) -> None:
    outcome = killed(ready, str)
    assert outcome.recovered[0]["action"] == "its intent was closed, it is in quarantine"
    assert ready.info()["intents"] == []


def test_killed_before_the_rename(ready: World) -> None:
    outcome = killed(ready, lambda entry: (entry / "data").rename(ready.share / "volume"))
    assert outcome.recovered[0]["action"] == "it had not been moved yet"
    assert list(ready.trash.iterdir()) == [] and len(ready.info()["intents"]) == 1


def test_killed_while_the_manifest_was_written(ready: World) -> None:
    def tear(entry: Path) -> None:
        (entry / "data").rename(ready.share / "volume")
        (entry / "manifest.json").write_text('{"kind": "Mani')

    assert killed(ready, tear).recovered[0]["action"] == "removed, it was empty"


def test_killed_while_it_came_back(ready: World) -> None:
    outcome = killed(ready, lambda entry: (entry / "manifest.json").rename(entry / "restoring.json"))
    assert outcome.recovered[0]["action"] == "its return was undone, it is in quarantine"
    assert ready.info()["quarantined"][0]["state"] == "quarantined"


def test_killed_after_it_came_back(ready: World) -> None:
    def come_back(entry: Path) -> None:
        (entry / "manifest.json").rename(entry / "restoring.json")
        (entry / "data").rename(ready.share / "volume")

    assert killed(ready, come_back).recovered[0]["action"] == "its return was finished"
    assert {intent["restored"] for intent in ready.info()["intents"]} == {True, False}


def test_killed_after_its_content_came_back(ready: World) -> None:
    def come_back(entry: Path) -> None:
        (entry / "manifest.json").rename(entry / "restoring.json")
        for path in (entry / "data").iterdir():
            path.rename(ready.share / "volume" / path.name)

    assert killed(ready, come_back, scope="content").recovered[0]["action"] == "its return was finished"


def test_killed_before_content_was_moved(ready: World) -> None:
    def go_back(entry: Path) -> None:
        for path in (entry / "data").iterdir():
            path.rename(ready.share / "volume" / path.name)

    assert killed(ready, go_back, scope="content").recovered[0]["action"] == "it had not been moved yet"


def test_killed_at_the_end_of_a_purge(ready: World) -> None:
    def purge(entry: Path) -> None:
        (entry / "manifest.json").rename(entry / "purging.json")
        (entry / "data").rename(ready.folder / "elsewhere")

    assert killed(ready, purge).recovered[0]["action"] == "its removal was finished"


def test_what_a_person_has_to_look_at(ready: World) -> None:
    """Nobody of us leaves a trash like this: it is named, and nothing is done with it."""

    def swap(entry: Path) -> None:
        (entry / "data").rename(entry / "x")
        (entry / "data").mkdir()

    damages: tuple[tuple[str, Callable[[Path], object], str], ...] = (
        ("a", lambda entry: (entry / "manifest.json").unlink(), "data without a manifest"),
        ("b", lambda entry: (entry / "manifest.json").write_text("{"), "is damaged"),
        ("c", lambda entry: (entry / "manifest.json").write_text('{"kind": "Manifest", "schema": 1}'), "is missing"),
        ("d", swap, "not what its manifest"),
    )
    for name, change, words in damages:
        volume = ready.volume(name)
        ready.run("quarantined", ready.step(volume))
        (entry,) = (path for path in ready.trash.iterdir() if f"-{name}-" in path.name)
        change(entry)
        before = tree(entry)
        (warning,) = (text for text in ready.run("closed").warnings if f"-{name}-" in text)
        assert words in warning and tree(entry) == before


def test_data_that_somebody_has_taken_away(ready: World) -> None:
    step = ready.of_volume(ready.volume(), objects=objects())
    ready.run("intended", step)
    ready.run("quarantined", step)
    (entry,) = ready.trash.iterdir()
    (entry / "data").rename(ready.folder / "elsewhere")
    (warning,) = ready.run("closed").warnings
    assert "somebody else has taken it away" in warning and (entry / "manifest.json").exists(), "its objects are there"
    assert "cannot be brought back whole" in ready.run("restored", ready.entry()).problem
    assert "there is no directory" in ready.run("purged", ready.entry(), allow_purge_now=True).problem
    (ready.trash / "a file").write_text("x")
    assert any("a file" in warning for warning in ready.run("closed").warnings)


def test_a_begun_purge_of_another_share_is_left_alone(ready: World) -> None:
    step = ready.quarantined(ready.volume())
    entry = ready.trash / step["entry"]
    manifest = json.loads((entry / "manifest.json").read_text())
    (entry / "manifest.json").write_text(json.dumps({**manifest, "share": "elsewhere"}))
    (entry / "manifest.json").rename(entry / "purging.json")
    assert ready.run("purged").items == [] and (entry / "data/file").exists()
    (entry / "purging.json").rename(entry / "restoring.json")
    outcome = ready.run("purged", step, check_mode=True, allow_purge_now=True)
    assert "was quarantined from the share" in outcome.problem


def test_purge_of_what_is_on_its_way_back(ready: World) -> None:
    step = ready.quarantined(ready.volume())
    (ready.trash / step["entry"] / "manifest.json").rename(ready.trash / step["entry"] / "restoring.json")
    assert "is on its way back" in ready.run("purged", step, check_mode=True, allow_purge_now=True).problem


# --- odds and ends -----------------------------------------------------------------------------------------


def test_intents_for_something_else(ready: World) -> None:
    one, two = ready.volume("one"), ready.volume("two")
    ready.run("intended", ready.of_volume(one, objects=objects()))
    outcome = ready.run("quarantined", ready.of_volume(two))
    assert f"the open intent is for {one}" in outcome.problem
    outcome = ready.run("quarantined", ready.of_volume(one, scope="content"))
    assert "the open intent has scope directory" in outcome.problem
    (ready.own / "intents/odd.json").write_text("{")
    with pytest.raises(ValueError, match=r"odd.json is damaged"):
        ready.run("quarantined", ready.of_volume(one))


def test_objects_of_a_file(ready: World) -> None:
    steps = [ready.of_volume(ready.volume(uid), uid=uid) for uid in ("1", "2", "3")]
    path = ready.folder / "objects.jsonl"
    path.write_text(json.dumps(objects("2")) + "\n" + json.dumps(objects("1")) + "\n")
    outcome = ready.run("intended", *steps, objects=str(path))
    assert states(outcome) == ["changed", "changed", "refused"]
    assert "the PersistentVolume itself is missing" in outcome.problem
    path.write_text(json.dumps(objects("3")) + "\n{\n")
    outcome = ready.run("intended", *steps, objects=str(path))
    assert states(outcome) == ["not_started", "not_started", "changed"] and "line 2" in outcome.problem
    outcome = ready.run("intended", *steps, objects=str(ready.folder / "missing"))
    assert states(outcome) == ["not_started"] * 3 and "No such file" in outcome.problem


def test_without_the_uid_of_the_cluster(ready: World) -> None:
    assert "cluster_uid is not given" in ready.run("quarantined", ready.step(ready.volume()), cluster_uid=None).problem


def test_many_failures_are_counted(ready: World) -> None:
    steps = [ready.step(ready.share / f"x{number}", precondition={"device": 1, "inode": 1}) for number in range(7)]
    outcome = ready.run("quarantined", *steps)
    assert "7 of 7 steps are not as asked for" in outcome.problem and "and 2 more, see directories" in outcome.problem
    assert outcome.summary()["gone"] == 7


def test_present_in_check_mode(world: World) -> None:
    assert world.present(check_mode=True).changed
    assert not world.own.exists()
    world.present()
    assert not world.present(check_mode=True).changed


def test_shares_that_are_not_there(world: World) -> None:
    with pytest.raises(ValueError, match=r"shares: /missing: /missing: No such file"):
        world.run("quarantined", shares=["/missing"])


def test_states_without_a_folder(world: World) -> None:
    """Nothing was ever quarantined here."""
    anything = {"share": str(world.share), "entry": "x", "precondition": {"device": 1, "inode": 1}}
    assert states(world.run("restored", anything)) == ["gone"]
    assert states(world.run("purged", anything)) == ["unchanged"]
    closed = {"share": str(world.share), "volume": {"name": "a", "uid": "b"}}
    assert states(world.run("closed", closed)) == ["unchanged"]
    assert not world.own.exists()


def test_lease_of_a_process_of_this_machine_that_has_ended(ready: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without lease_owner a run is its own owner: what a killed one has left does not stand in the way."""
    monkeypatch.setattr(_own_folder.Folder, "drop_lease", lambda _self: None)
    ready.run("quarantined")
    assert (ready.own / "lease.json").exists()
    monkeypatch.setattr(os, "getpid", lambda: 1)
    with pytest.raises(ValueError, match="holds the lease"):
        ready.run("quarantined")
    ended = subprocess.Popen(["true"])
    ended.wait()
    lease = json.loads((ready.own / "lease.json").read_text())
    lease["owner"]["pid"] = ended.pid
    (ready.own / "lease.json").write_text(json.dumps(lease))
    assert ready.run("quarantined").problem == ""


def test_lease_that_cannot_be_dropped(ready: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_self: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(_own_folder.Folder, "drop_lease", fail)
    (warning,) = ready.run("quarantined").warnings
    assert "stays: Input/output error" in warning


def test_boot_id_that_nobody_tells(ready: World) -> None:
    places = Places(table=str(ready.table), nfsd=str(ready.nfsd), boot_id="/missing")
    request = read_request(ready.arguments("quarantined", []))
    assert _volume_dirs_run.run(request, places).problem == ""


def test_restored_to_another_place(ready: World) -> None:
    volume = ready.volume()
    before = content(volume)
    step = ready.quarantined(volume)
    assert states(ready.run("restored", {**step, "directory": str(ready.share / "other")})) == ["changed"]
    assert content(ready.share / "other") == before and not volume.exists()


def test_a_rename_that_fails_on_the_way_back(ready: World, monkeypatch: pytest.MonkeyPatch) -> None:
    step = ready.quarantined(ready.volume())
    for number, words in ((errno.EXDEV, "inherits another project"), (errno.EIO, "Input/output error")):

        def fail(*_arguments: Any, error: int = number) -> None:
            raise OSError(error, os.strerror(error))

        monkeypatch.setattr(_volume_dirs_run, "rename_to_free_name", fail)
        outcome = ready.run("restored", step)
        assert states(outcome) == ["failed"] and words in outcome.problem
        assert ready.info()["quarantined"][0]["state"] == "quarantined"


def test_content_that_cannot_be_moved(ready: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mount of another namespace, for example: EBUSY."""
    volume = ready.volume()
    step = ready.of_volume(volume, scope="content", objects=objects())
    ready.run("intended", step)
    rename = _volume_dirs_quarantine.rename_to_free_name

    def busy(source: int, name: str, *more: Any) -> None:
        if name == "sub":
            raise OSError(errno.EBUSY, "Device or resource busy", name)
        rename(source, name, *more)

    for place in (_volume_dirs_quarantine, _volume_dirs_run):
        monkeypatch.setattr(place, "rename_to_free_name", busy)
    outcome = ready.run("quarantined", step)
    assert "sub: Device or resource busy" in outcome.problem and [path.name for path in volume.iterdir()] == ["sub"]
    assert len(ready.info()["intents"]) == 1
    assert outcome.changed
    monkeypatch.undo()
    assert states(ready.run("quarantined", step)) == ["changed"]
    for place in (_volume_dirs_quarantine, _volume_dirs_run):
        monkeypatch.setattr(place, "rename_to_free_name", busy)
    outcome = ready.run("restored", ready.entry())
    assert "1 names stay in quarantine: sub: Device or resource busy" in outcome.problem
    assert (volume / "file").exists()


def test_a_day_in_words() -> None:
    assert days(3600) == "1.0 hours"
    assert days(86400 * 2.5) == "2.5 days"


# The same refusals on real mounts, with everything around hashed: tests/server_dirs/test_hostile.py.


def test_what_is_refused(ready: World) -> None:
    volume = ready.volume()
    inner = volume / "sub"
    cases: tuple[tuple[str, list[dict[str, Any]], dict[str, Any]], ...] = (
        ("holds", [ready.step(volume)], {"keep": [str(inner)]}),
        ("of another volume or share, too", [ready.step(volume)], {"keep": [str(volume)]}),
        ("holds", [ready.step(volume), ready.step(inner)], {}),
        ("in more than one step", [ready.step(volume), ready.step(volume)], {}),
        ("is a symbolic link", [ready.step(volume / "link")], {}),
        ("is no directory", [ready.step(volume / "file")], {}),
    )
    for words, steps, more in cases:
        outcome = ready.run("quarantined", *steps, **more)
        assert outcome.items[0]["state"] == "refused" and words in outcome.problem
    inner.mkdir()  # the inner step of two is no mistake: it was done
    (ready.share / "alias").symlink_to("volume")
    outcome = ready.run("quarantined", ready.step(ready.share / "alias/sub"))
    assert outcome.items[0]["state"] == "refused" and "symbolic link" in outcome.problem
    for uid, directory in (("8", volume), ("9", inner)):
        ready.run("intended", ready.of_volume(directory, uid=uid, objects=objects(uid)))
    assert "holds" in ready.run("quarantined", ready.step(volume)).problem
    assert "is about to be quarantined" in ready.run("quarantined", ready.step(inner)).problem


def test_mount_points(ready: World, monkeypatch: pytest.MonkeyPatch) -> None:
    volume = ready.volume()
    step = ready.quarantined(ready.volume("other"))
    for place, asked in (
        (volume, ("quarantined", ready.step(volume))),
        (volume / "sub", ("quarantined", ready.step(volume))),
        (ready.trash / step["entry"] / "data/sub", ("purged", step)),
    ):
        (mount,) = _mounts.parse(f"9 1 8:1 / {place} rw - xfs /dev/sdb rw")
        table = [*_mounts.MountTable(_mounts.read().mounts).mounts, mount]
        with monkeypatch.context() as patched:
            patched.setattr(_mounts, "read", lambda table=table: _mounts.MountTable(table))
            outcome = ready.run(asked[0], asked[1], allow_purge_now=True)
        assert states(outcome) == ["refused"] and "mount point" in outcome.problem


def test_what_is_not_in_quarantine_as_planned(ready: World) -> None:
    step = ready.quarantined(ready.volume())
    entry = ready.trash / step["entry"]
    for state in ("restored", "purged"):
        stale = {**step, "precondition": {"device": 1, "inode": 1}}
        assert states(ready.run(state, stale, allow_purge_now=True)) == ["stale"]
    ready.volume()
    assert "is there already" in ready.run("restored", step).problem
    manifest = json.loads((entry / "manifest.json").read_text())
    for below, words in (("", "is the root of the share"), ("a/b", "is not there any more; make it first")):
        (entry / "manifest.json").write_text(json.dumps({**manifest, "below": below}))
        assert words in ready.run("restored", step).problem
    (entry / "manifest.json").write_text(json.dumps({**manifest, "inode": 5}))
    for state in ("restored", "purged"):
        outcome = ready.run(state, step, check_mode=True, allow_purge_now=True)
        assert "is not what its manifest says" in outcome.problem
    (entry / "manifest.json").unlink()
    assert "has no manifest" in ready.run("purged", step, check_mode=True, allow_purge_now=True).problem


def test_clocks(ready: World) -> None:
    ready.clock = 1_800_000_000.0
    step = ready.quarantined(ready.volume(), controller_time="1800000000")
    ready.clock -= 86400
    assert "is still to come" in ready.run("purged", step).problem
    ready.clock += 16 * 86400
    assert "13.0 days" in ready.run("purged", step, controller_time=str(1_800_000_000 + 13 * 86400)).problem
    assert states(ready.run("purged", step, controller_time=str(ready.clock))) == ["changed"]


def test_files_that_cannot_be_removed(ready: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Immutable ones, for example: the rest goes, and the next purge goes on by itself."""
    volume = ready.volume()
    step = ready.quarantined(volume)
    unlink = os.unlink

    def refuse(name: Any, *, dir_fd: int | None = None) -> None:
        if name == "other":
            raise OSError(errno.EPERM, "Operation not permitted", name)
        unlink(name, dir_fd=dir_fd)

    with monkeypatch.context() as patched:
        patched.setattr(os, "unlink", refuse)
        outcome = ready.run("purged", step, allow_purge_now=True)
    assert states(outcome) == ["failed"] and outcome.changed
    assert "1 of it cannot be removed: sub/deeper/other: cannot be removed; it," in outcome.problem
    assert ready.info()["quarantined"][0]["state"] == "purging"
    outcome = ready.run("purged")
    assert states(outcome) == ["changed"] and outcome.items[0]["entry"] == step["entry"]


def test_lease_that_is_lost_in_a_purge(ready: World, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = []
    for name in ("a", "b"):
        ready.run("quarantined", ready.step(ready.volume(name)))
    steps = [ready.entry(number) for number in range(2)]
    calls: list[int] = []

    def lose(_self: Any, **_more: Any) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise FolderError("somebody has taken the lease")

    monkeypatch.setattr(_own_folder.Folder, "renew_lease", lose)
    outcome = ready.run("purged", *steps, allow_purge_now=True)
    assert states(outcome) == ["failed", "not_started"] and outcome.items[0]["changed"]
