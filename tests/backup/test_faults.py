# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks that are full or away, wrong passwords, files that vanish, bits that flip, people who mean harm."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import _backup_run
from ansible_collections.clusterkit.storage.plugins.module_utils._backup import BackupError

from .trees import difference, picture
from .world import PASSWORD, World, disk, mount, names

FIBMAP = 1  # linux/fs.h


@pytest.fixture
def small_disk(world: World) -> Iterator[World]:
    """8 MiB for backups."""
    mount("-t", "tmpfs", "-o", "size=8m", "tmpfs", world.backup)
    yield world
    subprocess.run(["umount", "--lazy", str(world.backup)], check=True)


def test_full_backup_disk(small_disk: World) -> None:
    world = small_disk
    (world.volume / "small").write_bytes(os.urandom(1 << 20))
    good = world.good()["generation"]
    (world.volume / "large").write_bytes(os.urandom(16 << 20))
    before = picture(world.volume)
    outcome = world.back_up()
    (problem,) = outcome.problems
    assert re.search(r"web/pv-1: .*([Nn]o space left)", problem)
    assert not outcome.changed
    assert difference(before, picture(world.volume)) == {}
    if world.engine == "rsync":
        # What does not help is taken away again.
        assert names(world.backup / "repository/web/pv-1") == [".lock", good, "latest"]
    world.back({"server_dir": str(world.share / "back"), "generation": good})
    assert names(world.share / "back") == ["small"]
    (world.volume / "large").unlink()
    assert world.good()["complete"]


def test_no_room_to_restore(world: World) -> None:
    (world.volume / "large").write_bytes(os.urandom(6 << 20))
    world.good()
    small = world.folder / "small"
    small.mkdir()
    mount("-t", "tmpfs", "-o", "size=8m", "tmpfs", small)
    try:
        (small / "volume").mkdir()
        (small / "volume/there").write_bytes(os.urandom(4 << 20))
        item = {"server_dir": str(small / "volume"), "share": str(small)}
        for check_mode in (True, False):
            (problem,) = world.restore(item, check_mode=check_mode).problems
            assert re.search(
                r"6\.\d MiB are needed beside what is there, 4\.\d MiB are free|3\.\d MiB are free", problem
            )
        assert names(small / "volume") == ["there"]
    finally:
        subprocess.run(["umount", "--lazy", str(small)], check=True)


def test_a_file_that_the_disk_cannot_read(world: World) -> None:
    world.volume.rmdir()
    image = disk(world, "mkfs.ext4", "-q", "-F")
    world.volume.mkdir()
    (world.volume / "good").write_text("good")
    (world.volume / "bad").write_bytes(os.urandom(3 << 20))
    (world.volume / "other-name").hardlink_to(world.volume / "bad")
    world.good()
    with (world.volume / "bad").open("r+b") as stream:  # as if it had been written since the backup
        stream.write(b"new")
        os.fsync(stream.fileno())
        size = os.statvfs(world.share).f_bsize
        block = struct.pack("i", (2 << 20) // size)
        (place,) = struct.unpack("i", fcntl.ioctl(stream, FIBMAP, block))
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    whole = image.stat().st_size
    os.truncate(image, place * size)
    try:
        with pytest.raises(OSError, match="Input/output error"):
            (world.volume / "bad").read_bytes()
        outcome = world.back_up()
        assert "nput/output error" in outcome.problems[0]
        item = outcome.items[0]
        assert item["failed"] and not item["complete"]
        assert [one["complete"] for one in world.generations()] == [True, False]
    finally:
        os.truncate(image, whole)
    if world.engine == "rsync":
        # It is not there rather than in part, and the list does not say that it is.
        assert names(Path(item["path"]) / "data") == ["good"]
        assert item["files"] == 1
    wanted = {"server_dir": str(world.share / "back"), "generation": item["generation"]}
    world.back(wanted)
    assert names(world.share / "back") == ["good"]
    # The next one is whole again.
    assert (world.volume / "bad").read_bytes()[:3] == b"new"
    assert world.good()["complete"]
    assert not world.verify().problems


def test_backup_disk_is_away(world: World) -> None:
    mount("-t", "tmpfs", "tmpfs", world.backup)
    (world.volume / "a").write_text("a")
    world.good()
    subprocess.run(["umount", str(world.backup)], check=True)
    with_problem = r"is the disk mounted"
    if world.engine == "rsync":
        with pytest.raises(BackupError, match=with_problem):
            world.back_up(create=False)
    else:
        (problem,) = world.back_up(create=False).problems
        assert re.search(with_problem, problem)
    with pytest.raises(BackupError, match=with_problem):
        world.restore()
    assert names(world.backup) == []  # the disk below is not filled
    assert (world.volume / "a").read_text() == "a"


def test_wrong_password(restic_world: World) -> None:
    world = restic_world
    (world.volume / "a").write_text("a")
    world.good()
    for call in (world.back_up, world.restore):
        try:
            problems = call(password="wrong").problems  # noqa: S106 - as above
        except BackupError as error:
            problems = [str(error)]
        assert len(problems) == 1 and "restic: wrong password for " in problems[0]
    with pytest.raises(BackupError, match="wrong password"):
        world.back_up(create=True, password="wrong")  # noqa: S106 - as above
    assert len(world.generations()) == 1


def test_passwords_by_file_and_command(restic_world: World) -> None:
    world = restic_world
    (world.volume / "a").write_text("a")
    world.good()
    file = world.folder / "password"
    file.write_text(f"{PASSWORD}\n")
    assert world.good(password=None, password_file=str(file))["complete"]
    assert world.good(password=None, password_command=f"cat '{file}'")["complete"]


def test_files_that_vanish_during_the_copy(world: World) -> None:
    for number in range(3000):
        (world.volume / f"f{number:04}").write_bytes(b"x" * 100)
    (world.volume / "z").write_text("last")
    ended = threading.Event()

    def come_and_go() -> None:
        while not ended.is_set():
            for number in range(0, 3000, 3):
                (world.volume / f"f{number:04}").unlink(missing_ok=True)
            for number in range(0, 3000, 3):
                (world.volume / f"f{number:04}").write_bytes(b"y" * 100)

    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        made = [world.good()]
        while not any(one["vanished"] for one in made) and len(made) < 15:
            made.append(world.good())
    finally:
        ended.set()
        thread.join()
    assert all(one["complete"] for one in made) and any(one["vanished"] for one in made), made
    for number, one in enumerate(made):
        place = world.share / f"back{number}"
        world.back({"server_dir": str(place), "generation": one["generation"]})
        assert (place / "z").read_text() == "last"


def test_files_that_change_between_listing_and_reading(rsync_world: World) -> None:
    """The list of a generation tells of its copies, not of what rsync saw first."""
    world = rsync_world
    first = world.volume / "a"
    first.write_bytes(os.urandom(3 << 20))
    for name in ("grows", "shrinks", "linked"):
        (world.volume / name).write_bytes(b"x" * 100)
    (world.volume / "other").hardlink_to(world.volume / "linked")
    in_time: list[bool] = []

    def change() -> None:
        while not (begun := list(world.backup.rglob(".a.*"))):
            time.sleep(0.01)
        (world.volume / "grows").write_bytes(b"y" * 5000)
        (world.volume / "shrinks").write_bytes(b"")
        (world.volume / "linked").write_bytes(b"z" * 7)
        in_time.append(begun[0].exists())

    thread = threading.Thread(target=change)
    thread.start()
    made = world.good(bandwidth=512)
    thread.join()
    assert in_time == [True]
    assert made["complete"] and made["bytes"] == made["copied_bytes"] + 7 == (3 << 20) + 5000 + 7 + 7
    world.back({"server_dir": str(world.share / "back")})
    assert {path.name: path.stat().st_size for path in (world.share / "back").iterdir()} == {
        "a": 3 << 20, "grows": 5000, "shrinks": 0, "linked": 7, "other": 7,
    }  # fmt: skip
    again = world.good()
    assert again["changed_files"] == 3, again
    assert not world.verify().problems


def test_two_changes_in_one_second(rsync_world: World) -> None:
    world = rsync_world
    (world.volume / "linked").write_bytes(b"one")
    (world.volume / "other").hardlink_to(world.volume / "linked")
    os.utime(world.volume / "linked", ns=(0, 1_700_000_000_100_000_000))
    world.good()
    (world.volume / "linked").write_bytes(b"two")
    os.utime(world.volume / "linked", ns=(0, 1_700_000_000_200_000_000))
    world.good()
    world.back({"server_dir": str(world.share / "back")})
    assert {(world.share / "back" / name).read_text() for name in ("linked", "other")} == {"two"}


def test_one_flipped_bit_is_found(world: World) -> None:
    for number in range(50):
        (world.volume / f"f{number:02}").write_bytes(os.urandom(20_000))
    world.good()
    before = picture(world.volume)
    assert not world.verify(data=100).problems
    if world.engine == "rsync":
        (victim,) = world.backup.rglob("data/f31")
        found = victim.stat()
        flip(victim, 12_345)
        os.utime(victim, ns=(found.st_atime_ns, found.st_mtime_ns))
    else:
        victim = max(
            (world.backup / "repository/data").rglob("*"), key=lambda path: path.stat().st_size * path.is_file()
        )
        flip(victim, victim.stat().st_size // 2)
    outcome = world.verify(data=100)
    assert outcome.problems
    if world.engine == "rsync":
        assert outcome.items[0]["damaged"] == ["f31"]
        assert "f31: has another content than was recorded" in outcome.problems[0]
    # It does not get into the volume.
    generation = world.generations()[0]["generation"]
    outcome = world.restore({"generation": generation})
    assert outcome.problems and difference(before, picture(world.volume)) == {}
    assert names(world.share) == [world.volume.name]
    if world.engine == "rsync":
        with pytest.raises(AssertionError):
            world.back()  # it is not the latest good one any more
        # The next generation shares nothing with it, and is good.
        assert world.good()["copied_bytes"] == 50 * 20_000
        assert not world.verify().problems
        assert world.generations()[0]["damaged"]


def flip(path: Path, place: int) -> None:
    path.chmod(0o600)
    with path.open("r+b") as stream:
        stream.seek(place)
        byte = stream.read(1)[0]
        stream.seek(place)
        stream.write(bytes([byte ^ 4]))


def test_damaged_records_are_found(rsync_world: World) -> None:
    world = rsync_world
    (world.volume / "a").write_text("a")
    place = Path(world.good()["path"])
    whole = (place / "files.list").read_bytes()
    (place / "files.list").write_bytes(whole.replace(b"|a\n", b"|b\n"))
    assert "one of them is damaged" in world.verify().problems[0]
    (place / "files.list").write_bytes(whole)
    assert not world.verify().problems
    (place / "manifest.json").write_text("{")
    (found,) = world.generations()
    assert not found["complete"] and not found["latest"]
    assert "none of its 1 generations is complete" in world.restore().problems[0]


def test_one_failed_volume_does_not_stop_the_others(world: World) -> None:
    (world.volume / "a").write_text("a")
    (world.share / "link").symlink_to("/etc")
    items = [
        world.item(name="pv-missing", server_dir=str(world.share / "missing")),
        world.item(name="pv-link", server_dir=str(world.share / "link")),
        world.item(name="pv-below", server_dir=str(world.share / "link/ssl")),
        world.item(),
    ]
    outcome = world.back_up(*items, parallel=2)
    assert [item["failed"] for item in outcome.items] == [True, True, True, False]
    assert "No such file or directory" in outcome.problems[0]
    assert all("is a symbolic link" in problem for problem in outcome.problems[1:])
    assert [one["name"] for one in world.generations()] == ["pv-1"]
    (world.share / "other").symlink_to("/etc")
    wanted = [{"server_dir": str(world.share / "link")}, {"server_dir": str(world.share / "other/x")}, {}]
    restored = world.restore(*wanted, {"name": "pv-9", "server_dir": str(world.share / "nine")})
    assert [item["failed"] for item in restored.items] == [True, True, False, True]
    assert not Path("/etc/x").exists() and names(world.volume) == ["a"]


def test_links_inside_a_volume_lead_nowhere(world: World) -> None:
    """A tenant puts a link where a file of the backup lies, to have it written elsewhere."""
    outside = world.folder / "outside"
    outside.mkdir()
    (outside / "file").write_text("not yours")
    (world.volume / "sub").mkdir()
    (world.volume / "sub/file").write_text("mine")
    world.good()
    shutil.rmtree(world.volume / "sub")
    (world.volume / "sub").symlink_to(outside)
    assert "symbolic link" in world.restore({"paths": ["sub/file"]}).problems[0]
    assert (outside / "file").read_text() == "not yours"
    world.back()
    assert (world.volume / "sub/file").read_text() == "mine" and (outside / "file").read_text() == "not yours"


def test_clients_with_open_files_are_not_cut_off(rsync_world: World) -> None:
    world = rsync_world
    (world.volume / "a").write_text("a")
    world.good()
    found = (world.volume / "a").stat()
    client = world.folder / "nfsd/clients/7"
    client.mkdir(parents=True)
    (client / "info").write_text('clientid: 0x1\naddress: "192.0.2.9:700"\nname: "Linux NFSv4.2 node1"\n')
    (client / "states").write_text(
        f'- 0x01: {{ type: open, access: rw, deny: --, superblock: "{os.major(found.st_dev):02x}:'
        f'{os.minor(found.st_dev):02x}:{found.st_ino}", filename: "a", owner: "open id:" }}\n'
    )
    for check_mode in (True, False):
        assert "is open by" in world.restore(check_mode=check_mode).problems[0]
    assert not (world.folder / ".clusterkit/trash").exists() or names(world.folder / ".clusterkit/trash") == []


def test_old_restic_is_refused_by_its_version(restic_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world = restic_world
    (world.volume / "a").write_text("a")
    world.good()
    tools = world.folder / "tools"
    tools.mkdir()
    (tools / "restic").write_text("#!/bin/sh\necho restic 0.12.1 compiled with go1.18 on linux/amd64\n")
    (tools / "restic").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    (problem,) = world.back_up().problems
    assert "restic 0.12.1 is too old; expected 0.14.0 or newer" in problem
    with pytest.raises(BackupError, match="too old"):
        _backup_run.listing(world.settings, [], [], objects="none")
