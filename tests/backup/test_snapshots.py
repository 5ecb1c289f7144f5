# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups from snapshots: what was written meanwhile is not in them, and nothing is left of them.

btrfs is the real one. Not every kernel that tests run on has device-mapper, so that the commands of LVM are stand-ins:
they copy the disk while its file system is frozen, which is what a snapshot shows. Disks, mounts and file systems are
real.
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
from ansible_collections.clusterkit.storage.plugins.module_utils._snapshot_btrfs import Btrfs

from .trees import difference, odd_tree, picture
from .world import World, disk, forked, mount, names


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    found = tmp_path / "snapshots"
    monkeypatch.setattr(_snapshots, "PLACES", str(found))
    return found


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
        seen.append(list(names(world.share)))
        (world.volume / "late").write_text("too late")
        (world.volume / "a").write_text("torn")
        return copy(*given, **more)

    monkeypatch.setattr(_backup_run, "_back_up_one", back_up_one)
    return seen


def hanging(world: World, kind: str) -> Outcome:
    """A backup whose copies never end."""
    pytest.MonkeyPatch().setattr(_backup_run, "_back_up_one", lambda *_given, **_more: signal.pause())
    return world.back_up(snapshot=kind)


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
    make = Btrfs.make

    def noted(self: Btrfs, name: str) -> None:
        made.append(self.path)
        make(self, name)

    monkeypatch.setattr(Btrfs, "make", noted)
    outcome = world.back_up(*items, snapshot="btrfs", parallel=4)
    assert outcome.problems == []
    assert made == [str(world.share), str(world.share / "v4")]
    assert [one["snapshot"] for one in outcome.items] == ["btrfs"] * 4


def test_what_a_killed_run_has_left_is_removed_and_what_lives_is_not(btrfs: World) -> None:
    world = btrfs
    folder = world.share / ".clusterkit/snapshots"

    child = forked(lambda: hanging(world, "btrfs"))
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


# --- LVM ---------------------------------------------------------------------------------------------------

GROUP = f"clusterkit-test-{os.getpid()}"
TOOLS = {
    "lvs": """
row() {
  printf '%s{"vg_name":"%s", "lv_name":"%s", "origin":"%s", "lv_layout":"linear", "lv_role":"%s", \
"lv_size":"335544320", "lv_kernel_major":"%s", "lv_kernel_minor":"%s", "vg_free":"205520896", \
"vg_extent_size":"4194304", \
"lv_snapshot_invalid":"%s"}' "$1" "$GROUP" "$2" "$3" "$4" "$5" "$6" "$(cat "$STATE/invalid" 2>/dev/null)"
}
echo '{"report": [{"lv": ['
row "" data "" public,origin $(mountpoint -d "$SHARE" | tr : ' ')
for each in $(ls "/dev/$GROUP"); do row , "$each" data public,snapshot,thicksnapshot 253 9; done
echo ']}]}'
""",
    "lvcreate": """
[ "$*" = "--yes --snapshot --name $4 --addtag clusterkit.backup --size 33554432b $GROUP/data" ]
sync -f "$SHARE"
fsfreeze -f "$SHARE"
cp --sparse=always "$STATE/image" "$STATE/$4"
fsfreeze -u "$SHARE"
ln -s "$(losetup --find --show "$STATE/$4")" "/dev/$GROUP/$4"
""",
    "lvremove": """
[ "$1" = --yes ] && [ -L "/dev/$2" ]
losetup --detach "$(readlink "/dev/$2")"
rm "/dev/$2" "$STATE/${2#*/}"
""",
}


@pytest.fixture(params=["xfs", "ext4"])
def lvm(rsync_world: World, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    world = rsync_world
    world.volume.rmdir()
    disk(world, f"mkfs.{request.param}", "-q")
    world.volume.mkdir()
    tools = world.folder / "tools"
    tools.mkdir()
    for name, script in TOOLS.items():
        (tools / name).write_text(f"#!/bin/bash -e\n{script}")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    for name, value in (("GROUP", GROUP), ("SHARE", world.share), ("STATE", world.folder)):
        monkeypatch.setenv(name, str(value))
    devices = Path("/dev") / GROUP
    devices.mkdir()
    yield world
    subprocess.run(["umount", "--lazy", str(world.share)], check=True)
    devices.rmdir()  # nothing is left in it


def test_from_a_mounted_logical_volume(lvm: World, places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = lvm
    (world.volume / "a").write_text("good")
    (world.volume / "sub").mkdir()
    first = world.good()
    writing(monkeypatch, world)
    done = world.good(snapshot="lvm")
    assert (done["snapshot"], done["changed_files"], done["files"]) == ("lvm", 0, first["files"])
    assert sorted(one.name for one in Path(done["path"], "data").iterdir()) == ["a", "sub"]
    assert Path(done["path"], "data/a").read_text() == "good"
    assert names(places) == []
    # Through a bind mount of a part.
    elsewhere = world.folder / "elsewhere"
    elsewhere.mkdir()
    mount("--bind", world.volume, elsewhere)
    items = [world.item(), world.item(name="pv-2", server_dir=str(elsewhere / "sub"))]
    outcome = world.back_up(*items, snapshot="lvm")
    assert (outcome.problems, [one["snapshot"] for one in outcome.items]) == ([], ["lvm", "lvm"])
    subprocess.run(["umount", str(elsewhere)], check=True)


def test_what_a_killed_run_has_left_of_lvm_is_removed(lvm: World, places: Path) -> None:
    world = lvm
    (world.volume / "a").write_text("good")

    child = forked(lambda: hanging(world, "lvm"))
    deadline = time.monotonic() + 60
    while not any(os.path.ismount(path) for path in places.glob("clusterkit-backup-*")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    world.good(snapshot="lvm")
    assert (names(places), names(Path("/dev") / GROUP)) == ([], [])


def test_a_snapshot_that_has_become_full_is_named(lvm: World) -> None:
    world = lvm
    (world.volume / "a").write_text("good")
    (world.folder / "invalid").write_text("snapshot invalid")
    outcome = world.back_up(snapshot="auto")
    assert any("had become full at 32.0 MiB" in one for one in outcome.problems)


def test_a_snapshot_that_fails_half_way_leaves_nothing(lvm: World, places: Path) -> None:
    world = lvm
    failing = world.folder / "tools/mount"
    failing.write_text("#!/bin/bash\necho cannot >&2\nexit 32\n")
    failing.chmod(0o755)
    outcome = world.back_up(snapshot="auto")
    (problem,) = outcome.problems
    assert f"logical volume {GROUP}/data: " in problem or "mount --types" in problem
    assert outcome.items[0]["generation"] == ""
    assert (names(places), names(Path("/dev") / GROUP)) == ([], [])
