# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups from snapshots: what was written meanwhile is not in them, and nothing is left of them.

btrfs is the real one. There is no device-mapper in every kernel that tests run on, so that the commands of LVM are
stand-ins (tools.py's) that copy the frozen disk, as a snapshot shows it; disks, mounts and file systems are real.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import _backup_run, _snapshots
from ansible_collections.clusterkit.storage.plugins.module_utils._backup_run import Outcome

from .world import World, difference, forked, mount, names, odd_tree, picture


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    found = tmp_path / "snapshots"
    monkeypatch.setattr(_snapshots, "PLACES", str(found))
    return found


def disk(world: World, *make: str) -> Path:
    """A share on a file system of its own."""
    image = world.folder / "image"
    with image.open("wb") as stream:
        stream.truncate(320 << 20)
    subprocess.run([*make, str(image)], check=True, stdout=subprocess.DEVNULL)
    mount("-o", "loop", image, world.share)
    return image


@pytest.fixture
def btrfs(world: World) -> Iterator[World]:
    world.volume.rmdir()
    disk(world, "mkfs.btrfs", "-q")
    world.volume.mkdir()
    yield world
    subprocess.run(["umount", "--lazy", str(world.share)], check=True)


def subvolume(path: Path) -> None:
    subprocess.run(["btrfs", "-q", "subvolume", "create", str(path)], check=True)


def writing(monkeypatch: pytest.MonkeyPatch, world: World) -> list[list[str]]:
    """From now on somebody writes when the copies begin; what lies at the mount point then."""
    seen: list[list[str]] = []
    copy = _backup_run._back_up_one

    def back_up_one(*given: Any, **more: Any) -> Any:
        seen.append(names(world.share))
        (world.volume / "late").write_text("too late")
        (world.volume / "a").write_text("torn")
        return copy(*given, **more)

    monkeypatch.setattr(_backup_run, "_back_up_one", back_up_one)
    return seen


def content(world: World) -> dict[str, str]:
    """What the newest generation holds."""
    world.back({"paths": []})
    return {path.name: path.read_text() for path in world.volume.iterdir()}


def test_what_is_written_after_the_snapshot_is_not_in_it(btrfs: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world = btrfs
    (world.volume / "a").write_text("good")
    seen = writing(monkeypatch, world)
    done = world.good(snapshot="btrfs")
    assert (done["snapshot"], done["snapshot_reason"], done["server_dir"]) == ("btrfs", "", str(world.volume))
    assert seen == [[".clusterkit", world.volume.name]]
    assert names(world.share) == [world.volume.name]
    assert content(world) == {"a": "good"}


def test_a_generation_is_as_one_without_a_snapshot(btrfs: World) -> None:
    """Also where the volume is a subvolume: nothing is copied anew, and its own times are kept."""
    world = btrfs
    world.volume.rmdir()
    subvolume(world.volume)
    odd_tree(world.volume, 200)
    before = picture(world.volume, sockets=world.engine == "rsync")
    first = world.good()
    second = world.good(snapshot="auto")
    assert (second["snapshot"], second["changed_files"]) == ("btrfs", 0)
    assert [first[name] for name in ("files", "bytes", "path")][:2] == [second[name] for name in ("files", "bytes")]
    assert difference(before, picture(world.volume, sockets=world.engine == "rsync")) == {}
    found = world.generations()
    assert [one["complete"] for one in found] == [True, True]
    assert world.verify().problems == []


def test_a_mount_point_that_is_the_volume_keeps_its_times(btrfs: World) -> None:
    world = btrfs
    world.volume.rmdir()
    (world.share / "a").write_text("good")
    os.utime(world.share, ns=(10**18, 10**18))
    world.good(world.item(server_dir=str(world.share)), snapshot="btrfs")
    assert world.share.stat().st_mtime_ns == 10**18
    assert names(world.share) == ["a"]
    if world.engine == "rsync":
        (kept,) = (world.backup / "repository/web/pv-1").glob("2*/data")
        assert kept.stat().st_mtime_ns == 10**18
        assert names(kept) == ["a"]


def test_one_snapshot_for_all_volumes_of_a_subvolume(btrfs: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world = btrfs
    items = [world.item()]
    for number in (2, 3):
        (world.share / f"v{number}").mkdir()
        items.append(world.item(name=f"pv-{number}", server_dir=str(world.share / f"v{number}")))
    subvolume(world.share / "v4")
    items.append(world.item(name="pv-4", server_dir=str(world.share / "v4")))
    made: list[str] = []
    make = _snapshots.Btrfs.make
    monkeypatch.setattr(_snapshots.Btrfs, "make", lambda self, name: (made.append(self.path), make(self, name))[1])
    outcome = world.back_up(*items, snapshot="btrfs", parallel=4)
    assert outcome.problems == []
    assert made == [str(world.share), str(world.share / "v4")]
    assert [one["snapshot"] for one in outcome.items] == ["btrfs"] * 4


def test_what_a_killed_run_has_left_is_removed_and_what_lives_is_not(btrfs: World) -> None:
    world = btrfs
    folder = world.share / ".clusterkit/snapshots"

    def hang() -> Outcome:
        _backup_run._back_up_one = lambda *_given, **_more: time.sleep(60)  # type: ignore[assignment,return-value]
        return world.back_up(snapshot="btrfs")

    child = forked(hang)
    deadline = time.monotonic() + 60
    while not folder.exists() or not names(folder):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (left,) = names(folder)
    # As long as it lives, its snapshot is its own.
    world.good(snapshot="btrfs")
    assert names(folder) == [left]
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    (folder / "of-somebody-else").mkdir()
    world.good(snapshot="btrfs")
    assert names(folder) == ["of-somebody-else"]


def test_where_there_can_be_none(world: World) -> None:
    """On tmpfs: nothing is done where one is demanded, and it is said where one is not."""
    (world.volume / "a").write_text("good")
    for kind in ("lvm", "btrfs"):
        outcome = world.back_up(create=True, snapshot=kind)
        (problem,) = outcome.problems
        assert f"no snapshot ({kind}) can be made: " in problem and "is neither btrfs nor a logical volume" in problem
        assert outcome.items[0]["generation"] == ""
    done = world.good(snapshot="auto")
    assert done["snapshot"] == "none" and "is neither btrfs nor a logical volume" in done["snapshot_reason"]
    checked = world.back_up(snapshot="lvm", check_mode=True)
    assert checked.items[0]["failed"]
    assert world.good()["snapshot_reason"] == ""
