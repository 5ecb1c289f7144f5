# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks that are full or read-only, calls that fail, clocks that are wrong, two at once: an error or a safe result."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import _beneath, _own_folder, _volume_dirs_run
from ansible_collections.clusterkit.storage.tests.server_disk import OWN, World, content, mount, objects, tree

from .test_killed import CALLS, PLAN, Scene, points, run_traced, spread

DAY = 86400.0
NOW = 1_800_000_000.0


@pytest.fixture
def small(tmp_path: Path) -> Iterator[World]:
    """A disk of 16 MB with ext4, which has blocks and inodes of its own, unlike tmpfs."""
    image, disk = tmp_path / "image", tmp_path / "ext4"
    with image.open("wb") as stream:
        stream.truncate(16 * 2**20)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", image], check=True)
    disk.mkdir()
    mount("-o", "loop", image, disk)
    yield World(tmp_path, disk=disk)
    subprocess.run(["umount", disk], check=True)


def fill_up(world: World) -> None:
    """Until not even a directory can be made."""
    number = 0
    with (world.disk / "ballast").open("wb", buffering=0) as stream:
        for size in (2**16, 4096, 1):
            try:
                while True:
                    stream.write(b"x" * size)
            except OSError:
                continue
    try:
        while True:
            number += 1
            (world.disk / f"ballast{number}").mkdir()
    except OSError:
        return


def free(world: World) -> None:
    for path in world.disk.glob("ballast*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def test_full_disk(small: World) -> None:
    small.present()
    there, kept = small.volume("there"), small.volume("kept")
    before = content(kept)
    old = small.quarantined(there)
    step = small.of_volume(kept, objects=objects())
    fill_up(small)
    around = tree(small.folder, small.own, small.folder / "image")
    for state in ("intended", "quarantined"):
        with pytest.raises(ValueError, match=r"No space left"):
            small.run(state, step)
        assert tree(small.folder, small.own, small.folder / "image") == around
    # What makes room needs none.
    outcome = small.run("purged", old, allow_purge_now=True)
    assert outcome.problem == "" and list(small.trash.iterdir()) == []
    free(small)
    assert small.run("intended", step).problem == small.run("quarantined", step).problem == ""
    fill_up(small)
    assert small.run("restored", small.entry()).problem == ""
    assert content(kept) == before


def test_no_inode_left(tmp_path: Path) -> None:
    disk = tmp_path / "few"
    disk.mkdir()
    mount("-t", "tmpfs", "-o", "nr_inodes=60,size=8m", "tmpfs", disk)
    world = World(tmp_path, disk=disk)
    world.present()
    volume = world.volume()
    around = tree(world.folder, world.own)
    fill_up(world)
    with pytest.raises(ValueError, match=r"No space left"):
        world.run("quarantined", world.step(volume))
    free(world)
    assert tree(world.folder, world.own, world.disk / "x")[str(volume)] == around[str(volume)]
    assert world.run("quarantined", world.step(volume)).problem == ""


@pytest.mark.parametrize("state", ["intended", "quarantined", "restored", "purged", "closed"])
def test_read_only_file_system(world: World, state: str) -> None:
    world.present()
    step = world.of_volume(world.volume(), objects=objects())
    other = world.volume("other")
    world.run("intended", step)
    old = world.quarantined(other)
    mount("-o", "remount,ro", world.disk)
    before = tree(world.folder)
    try:
        with pytest.raises(ValueError, match=r"Read-only file system"):
            world.run(state, old if state in ("restored", "purged") else step, allow_purge_now=True)
        assert world.info()["complete"]
        assert world.run("quarantined", step, check_mode=True).changed
    finally:
        mount("-o", "remount,rw", world.disk)
    assert tree(world.folder) == before


def test_folder_cannot_be_made(world: World) -> None:
    mount("-o", "remount,ro", world.disk)
    with pytest.raises(ValueError, match=r"Read-only file system"):
        world.present()


ERRORS = ("ENOSPC", "EDQUOT", "EACCES", "EIO", "EROFS")


@pytest.mark.parametrize("state", PLAN)
def test_any_call_may_fail(tmp_path: Path, state: str, long: bool) -> None:
    """Each call that changes something returns an error once, or from then on."""
    log = tmp_path / "trace"
    scenes = 0

    def scene() -> Scene:
        nonlocal scenes
        scenes += 1
        folder = tmp_path / f"scene{scenes}"
        folder.mkdir()
        made = Scene(World(folder), state, 2)
        made.prepare()
        return made

    assert run_traced(scene(), log) == 0
    chosen = spread(points(log), 150 if long else 8)
    failed = 0
    for number, (name, when) in enumerate(chosen):
        error = ERRORS[number % len(ERRORS)]
        more = "+" if number % 2 else ""
        where = f"{error} at {name} number {when}{more} of {state}"
        one = scene()
        status = run_traced(one, log, "-e", f"inject={name}:error={error}:when={when}{more}")
        assert os.WIFEXITED(status) and os.WEXITSTATUS(status) in (0, 1), where
        failed += os.WEXITSTATUS(status)
        try:
            one.check_nothing_is_lost()
            outcome = one.do()
            assert outcome.problem == "", outcome.problem
            one.check_it_is_done()
        except AssertionError as problem:
            raise AssertionError(f"{where}: {problem}") from problem
        finally:
            subprocess.run(["umount", one.world.disk], check=True)
            shutil.rmtree(one.world.folder)
    assert failed > len(chosen) / 2, "most of these calls matter"
    assert set(CALLS.split(",")) >= {name for name, _when in chosen}


# --- clocks ------------------------------------------------------------------------------------------------


def test_clock_that_was_a_day_ahead(world: World) -> None:
    """What was quarantined then seems to be younger than it is: it stays longer."""
    world.clock = NOW + DAY
    world.present()
    step = world.quarantined(world.volume())
    world.clock = NOW
    early = world.run("purged", step)
    assert "which is still to come: the clock of this server was, or is, wrong" in early.problem
    world.clock = NOW + 14.5 * DAY
    assert "the retention is 14.0 days" in world.run("purged", step).problem
    world.clock = NOW + 15.1 * DAY
    assert world.run("purged", step).problem == ""


def test_clock_that_is_a_day_ahead(world: World) -> None:
    """With the time of the controller, it has to be old by both clocks."""
    world.clock = NOW
    world.present()
    step = world.quarantined(world.volume(), controller_time=str(NOW))
    world.clock = NOW + 14.5 * DAY
    right = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(NOW + 13.5 * DAY))
    assert "13.5 days" in world.run("purged", step, controller_time=right).problem
    assert world.run("purged", step).problem == "", "nobody said otherwise"


def test_clock_that_was_a_day_behind(world: World) -> None:
    world.clock = NOW - DAY
    world.present()
    step = world.quarantined(world.volume(), controller_time=str(NOW))
    world.clock = NOW + 13.5 * DAY
    assert "13.5 days" in world.run("purged", step, controller_time=str(world.clock)).problem


# --- two at once -------------------------------------------------------------------------------------------

ALICE = {"controller": "alice", "boot_id": "b1", "pid": 100}
BOB = {"controller": "bob", "boot_id": "b2", "pid": 100}


def kept_by(world: World, owner: dict[str, Any]) -> None:
    assert world.run("quarantined", lease_owner=owner, keep_lease=True).problem == ""


def test_lease_of_somebody_else(world: World) -> None:
    world.clock = NOW
    world.present()
    volume = world.volume()
    kept_by(world, ALICE)
    assert world.info()["shares"][0]["lease"]["owner"] == ALICE
    before = tree(world.folder, world.own / "lock")
    with pytest.raises(ValueError, match=r"process 100 of alice holds the lease of .* in 15 minutes; wait, or say"):
        world.run("quarantined", world.step(volume), lease_owner=BOB)
    assert tree(world.folder, world.own / "lock") == before
    assert world.run("quarantined", world.step(volume), lease_owner=BOB, check_mode=True).changed, "only reads"
    kept_by(world, ALICE)  # the same process again
    outcome = world.run("quarantined", world.step(volume), lease_owner=BOB, allow_break_lease=True)
    assert outcome.problem == "" and world.info()["shares"][0]["lease"] is None


@pytest.mark.parametrize(
    ("later", "more", "free"),
    [
        (14 * 60, {}, False),
        (15 * 60, {}, True),
        (0, {"lease_owner": {**ALICE, "boot_id": "b9", "pid": 7}}, True),
        (0, {"lease_owner": {**ALICE, "pid": 7}}, False),
        (0, {"lease_owner": {**ALICE, "pid": 7}, "lease_dead_pids": [100]}, True),
        (0, {"lease_dead_pids": [100]}, False),
        (-DAY, {}, False),
    ],
    ids=["14 min", "expired", "rebooted", "unknown", "dead", "dead elsewhere", "clock"],
)
def test_lease_is_taken_over(world: World, later: float, more: dict[str, Any], free: bool) -> None:
    world.clock = NOW
    world.present()
    kept_by(world, ALICE)
    world.clock = NOW + later
    arguments = {"lease_owner": BOB, **more}
    if free:
        assert world.run("quarantined", **arguments).problem == ""
    else:
        with pytest.raises(ValueError, match=r"holds the lease" + (".*clock of this server" if later < 0 else "")):
            world.run("quarantined", **arguments)


def test_lease_that_is_lost_in_the_middle(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody broke it: nothing more is begun."""
    world.present()
    steps = [world.step(world.volume(name)) for name in ("one", "two")]
    entries = []
    for step in steps:
        assert world.run("quarantined", step).problem == ""
    entries = [world.entry(number) for number in range(2)]
    monkeypatch.setattr(_own_folder, "_RENEW_SECONDS", -1)
    purge = _volume_dirs_run._Run._purge

    def and_then_broken(self: Any, step: Any) -> None:
        purge(self, step)
        lease = json.loads((world.own / "lease.json").read_text())
        (world.own / "lease.json").write_text(json.dumps({**lease, "owner": BOB}))

    monkeypatch.setattr(_volume_dirs_run._Run, "_purge", and_then_broken)
    outcome = world.run("purged", *entries, allow_purge_now=True, lease_owner=ALICE)
    assert [item["state"] for item in outcome.items] == ["changed", "not_started"]
    assert "process 100 of bob has taken the lease" in outcome.problem
    assert len(list(world.trash.iterdir())) == 1
    assert json.loads((world.own / "lease.json").read_text())["owner"] == BOB, "it is theirs"


def test_two_processes_at_the_same_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.present()
    monkeypatch.setattr(_own_folder, "_LOCK_SECONDS", 0.2)
    with (world.own / "lock").open() as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="another run works in"):
            world.run("quarantined", world.step(world.volume()))


# --- what cannot be removed --------------------------------------------------------------------------------


def test_immutable_files_are_reported_and_the_rest_goes(world: World, way: str) -> None:
    world.present()
    volume = world.volume()
    (volume / "keep").mkdir()
    for name in ("a", "keep/b", "keep/c"):
        (volume / name).write_text("x")
    subprocess.run(["chattr", "+i", volume / "keep/b"], check=True)
    subprocess.run(["chattr", "+a", volume / "a"], check=True)
    step = world.quarantined(volume)
    outcome = world.run("purged", step, allow_purge_now=True)
    assert outcome.items[0]["state"] == "failed" and outcome.items[0]["changed"]
    assert "2 of it cannot be removed" in outcome.problem and "keep/b: cannot be removed" in outcome.problem
    data = world.trash / step["entry"] / "data"
    assert sorted(str(path.relative_to(data)) for path in data.rglob("*")) == ["a", "keep", "keep/b"]
    (entry,) = world.info()["quarantined"]
    assert entry["state"] == "purging"
    assert "is purging, and cannot be brought back whole" in world.run("restored", world.entry()).problem
    subprocess.run(["chattr", "-i", "-a", data / "keep/b", data / "a"], check=True)
    # The next purge goes on with it, whatever it was asked for.
    outcome = world.run("purged")
    assert outcome.problem == "" and outcome.items[0]["entry"] == step["entry"]
    assert list(world.trash.iterdir()) == []


def test_depth_of_10000(world: World, way: str, long: bool) -> None:
    depth = 10_000 if way == "openat2" or long else 1_000
    volume = world.volume()
    directory = os.open(volume, os.O_RDONLY)
    for number in range(depth):
        os.mkdir("d", dir_fd=directory)
        below = os.open("d", os.O_RDONLY, dir_fd=directory)
        os.close(directory)
        directory = below
        if number % 100 == 0:
            os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=directory))
    os.close(directory)
    world.present()
    world.open_by(world.share / "neighbour/file")
    (listed,) = [
        one for one in world.info(size=True, only_for=[str(volume)])["directories"] if one["path"] == str(volume)
    ]
    assert listed["files"] == depth // 100 + 3 and listed["size_complete"]
    step = world.quarantined(volume)  # walks it, too: somebody has something open
    outcome = world.run("purged", step, allow_purge_now=True)
    assert outcome.problem == "" and list(world.trash.iterdir()) == []


def test_project_that_is_inherited(tmp_path: Path) -> None:
    """XFS refuses to rename into a directory that inherits another project (EXDEV): the folder never does."""
    image, disk = tmp_path / "image", tmp_path / "xfs"
    with image.open("wb") as stream:
        stream.truncate(320 * 2**20)
    subprocess.run(["mkfs.xfs", "-q", image], check=True)
    disk.mkdir()
    mount("-o", "loop", image, disk)
    try:
        world = World(tmp_path, disk=disk)
        for place, project in ((world.disk, 7), (world.share, 8), (world.volume(), 9)):
            subprocess.run(["xfs_io", "-c", f"chproj {project}", "-c", "chattr +P", place], check=True)
        (world.share / "volume/new").write_text("of project 9")
        world.present()
        for place in (world.own, world.trash, world.own / "intents"):
            told = subprocess.run(["xfs_io", "-c", "stat -v", place], check=True, capture_output=True, text=True).stdout
            assert "projid = 0" in told.replace("fsxattr.", "") and "proj-inherit" not in told, told
        step = world.quarantined(world.share / "volume")
        # Bringing it back meets the share's own inheritance, which is an operator's mistake, and loses nothing.
        outcome = world.run("restored", step)
        assert "(EXDEV)" in outcome.problem and "inherits another project" in outcome.problem
        assert len(world.info()["quarantined"]) == 1
        subprocess.run(["xfs_io", "-c", "chattr -P", world.share], check=True)
        assert world.run("restored", step).problem == ""
        assert (world.share / "volume/new").read_text() == "of project 9"
    finally:
        subprocess.run(["umount", disk], check=True)


def test_both_ways_refuse_what_the_other_refuses(world: World) -> None:
    """The walk without openat2 knows bind mounts of the same file system by their number, not by their device."""
    (world.share / "bind").mkdir()
    mount("--bind", world.share / "neighbour", world.share / "bind")
    directory = os.open(world.share, os.O_RDONLY)
    assert os.stat("bind", dir_fd=directory).st_dev == os.fstat(directory).st_dev
    for offered in (True, False):
        _beneath.kernel().openat2 = offered
        for parts in (["bind"], ["bind", "sub"]):
            with pytest.raises(_beneath.NotBeneath, match="mount point"):
                _beneath.open_below(directory, parts)
        os.close(_beneath.open_below(directory, ["neighbour", "sub"]))
    _beneath.kernel().openat2 = True
    os.close(directory)
    assert not (world.disk / OWN).exists()
