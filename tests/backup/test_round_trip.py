# SPDX-License-Identifier: GPL-3.0-or-later
"""What comes back is what was there."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import threading
import time
from pathlib import Path

import pytest

from .trees import acl, difference, odd_tree, picture
from .world import UID, World, disk, names


def allocated(folder: Path) -> int:
    """Bytes that a tree takes, each inode once."""
    seen = {}
    for path, _folders, files in os.walk(folder):
        for name in files:
            found = (Path(path) / name).lstat()
            seen[found.st_ino] = found.st_blocks * 512
    return sum(seen.values())


def plain_names(world: World) -> None:
    """restic keeps where a link leads as JSON, which has no bytes that are not UTF-8."""
    if world.engine == "restic":
        (world.volume / "odd/dangling").unlink()


def test_5000_odd_files(world: World) -> None:
    """Owners, modes, ACLs, attributes, links, holes, names, times; restic keeps neither sockets nor, in 0.14, holes."""
    odd_tree(world.volume, 5000)
    plain_names(world)
    limits = {"holes": world.engine == "rsync", "sockets": world.engine == "rsync"}
    before = picture(world.volume, **limits)
    made = world.good()
    assert made["complete"] and made["files"] > 4800
    shutil.rmtree(world.volume)
    world.volume.mkdir()
    (world.volume / "other").write_text("was there")
    result = world.back({"uid": UID})
    assert difference(before, picture(world.volume, **limits)) == {}
    assert (Path(result["quarantined"]) / "data/other").read_text() == "was there"
    manifest = json.loads((Path(result["quarantined"]) / "manifest.json").read_text())
    assert (manifest["volume"], manifest["scope"]) == ({"name": "pv-1", "uid": UID}, "directory")
    assert names(world.folder / ".clusterkit/restore") == []
    assert not world.verify().problems


def test_unchanged_data_is_not_copied_again(world: World) -> None:
    odd_tree(world.volume, 1000)
    first = world.good()
    size = allocated(world.backup)
    second = world.good()
    assert second["changed_files"] == 0 and second["files"] == first["files"]
    assert second["generation"] != first["generation"]
    # rsync: directories and lists; restic: a snapshot and, of the objects, nothing.
    assert allocated(world.backup) - size < (400_000 if world.engine == "rsync" else 60_000)
    if world.engine == "rsync":
        assert second["copied_bytes"] == 0
        one, two = Path(first["path"]) / "data", Path(second["path"]) / "data"
        for folder, _folders, files in os.walk(os.fsencode(one)):
            for name in files:
                path = os.path.join(folder, name)  # noqa: PTH118 - names are bytes
                other = os.path.join(os.fsencode(two), os.path.relpath(path, os.fsencode(one)))  # noqa: PTH118 - names are bytes
                assert os.lstat(path).st_ino == os.lstat(other).st_ino, path
        assert os.readlink(Path(second["path"]).parent / "latest") == second["generation"]  # noqa: PTH115 - as text
        lists = [(Path(each["path"]) / "files.list").read_bytes() for each in (first, second)]
        assert sorted(lists[0].splitlines()) == sorted(lists[1].splitlines())
    else:
        assert second["copied_bytes"] < 60_000


def test_older_generations_stay_as_they_were(world: World) -> None:
    odd_tree(world.volume, 200)
    plain_names(world)
    pictures = []
    for step in range(3):
        pictures.append((world.good()["generation"], picture(world.volume, holes=False, sockets=False)))
        victim = sorted(world.volume.glob("d*/e*/f*"))[step * 3 + 1]
        assert stat.S_ISREG(victim.lstat().st_mode)
        victim.chmod(0o777)  # rsync would change a link to an older generation with it
        os.chown(victim, 555, 555)
        (world.volume / "odd/empty").write_text(f"{step}")
        (world.volume / f"odd/new{step}").write_text("new")
    for generation, before in pictures:
        target = world.share / f"restored-{generation}"
        world.back({"server_dir": str(target), "generation": generation})
        assert difference(before, picture(target, holes=False, sockets=False)) == {}


def test_slip_of_the_missing_trailing_slash(world: World) -> None:
    """By hand, `rsync --delete /nfs/spv_001 /backup/spv_001/` and back makes spv_001/spv_001 and wipes the volume."""
    (world.volume / "precious").write_text("data")
    slip = world.folder / "by-hand"
    copy = ["rsync", "-a", "--delete"]
    subprocess.run([*copy, str(world.volume), f"{slip}/"], check=True)
    assert names(slip) == [world.volume.name]  # so the slip is real

    for directory in (str(world.volume), f"{world.volume}/"):
        world.good(world.item(server_dir=directory))
        world.back({"server_dir": directory})
        assert names(world.volume) == ["precious"]
        (world.volume / "precious").write_text("changed")
        world.back({"server_dir": directory})
        assert (world.volume / "precious").read_text() == "data"
    if world.engine == "rsync":
        generations = [path for path in (world.backup / "repository/web/pv-1").iterdir() if path.name[0] == "2"]
        assert {tuple(names(path / "data")) for path in generations} == {("precious",)}


def test_exported_directory_stays_the_same_one(world: World) -> None:
    """nfsd, and clients that have it mounted, know the directory itself: what is in it is exchanged."""
    world.exports(world.folder, world.volume)  # all of the disk is exported: .clusterkit is in the share
    odd_tree(world.volume, 300)
    plain_names(world)
    before = picture(world.volume, holes=False, sockets=False)
    world.good()
    inode = world.volume.stat().st_ino
    shutil.rmtree(world.volume / "odd")
    (world.volume / "odd").write_text("a file now")
    (world.volume / "extra").mkdir()
    (world.volume / "extra/file").write_text("extra")
    os.removexattr(world.volume, "user.root")
    os.setxattr(world.volume, "user.more", b"x")
    world.volume.chmod(0o700)
    share = str(world.volume)
    result = world.back({"share": share})
    assert world.volume.stat().st_ino == inode
    assert difference(before, picture(world.volume, holes=False, sockets=False)) == {}
    old = Path(result["quarantined"]) / "data"
    assert (old / "odd").read_text() == "a file now" and (old / "extra/file").read_text() == "extra"
    # The share is the volume, and .clusterkit lies in it: it is neither backed up nor put aside.
    assert (world.volume / ".clusterkit").is_dir()
    world.good()
    again = world.share / "again"
    world.back({"server_dir": str(again)})
    assert not (again / ".clusterkit").exists()
    assert difference(before, picture(again, holes=False, sockets=False)) == {}


@pytest.mark.parametrize("way", ["directory", "content", "paths"])
def test_times_on_xfs(rsync_world: World, way: str) -> None:
    """It gives directories that are exchanged a new time."""
    world = rsync_world
    world.volume.rmdir()
    disk(world, "mkfs.xfs", "-q")
    world.volume.mkdir()
    odd_tree(world.volume, 100)
    before = picture(world.volume, holes=False)
    world.good()
    shutil.rmtree(world.volume / "odd/sticky")
    for one in (world.volume, world.volume / "odd", world.volume / "d1"):
        os.utime(one)
    if way == "content":
        world.exports(world.volume)
    paths = {"paths": ["odd", "d1"]} if way == "paths" else {}
    world.back({"share": str(world.volume if way == "content" else world.share), **paths})
    after = picture(world.volume, holes=False)
    if way == "paths":  # its own time is none of theirs
        before[b"."] = after[b"."]
    assert difference(before, after) == {}


def test_single_paths(world: World) -> None:
    odd_tree(world.volume, 100)
    (world.volume / "keep").write_text("as it is")
    world.good()
    (world.volume / "keep").write_text("changed since")
    shutil.rmtree(world.volume / "odd")
    (world.volume / "d1/e1").rename(world.volume / "d1/moved")
    paths = ["odd/new\nline", "odd/star*?[a]{b}", "odd/back\\slash", "odd/-rf", "d1/e1", "d2"]
    (problem,) = world.restore({"paths": ["odd/nothing"]}).problems
    assert problem.endswith(" has no 'odd/nothing'")
    result = world.back({"paths": paths})
    assert names(world.volume / "odd") == ["-rf", "back\\slash", "new\nline", "star*?[a]{b}"]
    assert (world.volume / "keep").read_text() == "changed since"
    assert (world.volume / "odd").stat().st_mode & 0o777 == 0o755
    assert os.getxattr(world.volume / "odd", "system.posix_acl_default")
    assert (world.volume / "d1/e1").is_dir() and (world.volume / "d1/moved").is_dir()
    assert names(Path(result["quarantined"]) / "data") == ["d2"]


def copy_of(world: World, name: str) -> Path:
    (found,) = (world.backup / "repository").glob(f"web/*/2*/data/{name}")
    return found


def test_one_acl_is_found_during_the_first_copy(rsync_world: World) -> None:
    """A volume in which nothing has any is copied without; with the first one that is met it begins again."""
    world = rsync_world
    for number in range(3000):
        (world.volume / f"{number:04}").write_text(str(number))
    (world.volume / "z").write_bytes(os.urandom(8 << 20))
    os.setxattr(world.volume / "z", "system.posix_acl_access", acl(1000))
    made = world.good()
    assert (made["files"], made["complete"]) == (3001, True)
    assert os.getxattr(copy_of(world, "z"), "system.posix_acl_access") == acl(1000)
    assert not world.verify().problems
    assert names(copy_of(world, "z").parents[2]) == [".lock", copy_of(world, "z").parents[1].name, "latest"]


def test_the_first_acl_that_comes_after_its_file_was_copied_is_in_the_next_generation(rsync_world: World) -> None:
    """As with rsync -AX, which lists a folder before it copies what is in it."""
    world = rsync_world
    (world.volume / "a").write_text("a")
    (world.volume / "z").write_bytes(os.urandom(8 << 20))
    came = threading.Event()

    def set_when_copied() -> None:
        while not list(world.backup.glob("repository/web/*/*/data/a")):
            time.sleep(0.01)
        time.sleep(1)
        os.setxattr(world.volume / "a", "system.posix_acl_access", acl(1000))
        came.set()

    thread = threading.Thread(target=set_when_copied)
    thread.start()
    before = time.monotonic()
    assert world.good(bandwidth=4096)["complete"]
    assert came.is_set() and time.monotonic() - before > 1.5
    thread.join()
    assert world.good()["complete"]
    first, second = sorted((world.backup / "repository").glob("web/*/2*"))
    assert os.listxattr(first / "data/a") == []
    assert os.getxattr(second / "data/a", "system.posix_acl_access") == acl(1000)
    assert (first / "data/z").samefile(second / "data/z")
    assert [json.loads((each / "manifest.json").read_text())["attributes"] for each in (first, second)] == [False, True]
    assert names(first.parent) == [".lock", first.name, second.name, "latest"]
    assert not world.verify().problems


def test_a_generation_whose_manifest_is_damaged_may_have_attributes(rsync_world: World) -> None:
    world = rsync_world
    (world.volume / "a").write_text("a")
    world.good()
    (manifest,) = (world.backup / "repository").glob("web/*/2*/manifest.json")
    assert json.loads(manifest.read_text())["attributes"] is False
    os.setxattr(copy_of(world, "a"), "user.note", b"of somebody")
    manifest.write_text("")
    world.good()
    _first, second = sorted((world.backup / "repository").glob("web/*/2*/data/a"))
    assert os.listxattr(second) == []


def test_rights_of_the_backup_folder_do_not_come_into_generations(rsync_world: World) -> None:
    world = rsync_world
    (world.volume / "a").write_text("a")
    os.setxattr(world.backup, "system.posix_acl_default", acl(1000))
    world.good()
    assert os.listxattr(copy_of(world, "a")) == os.listxattr(copy_of(world, "a").parent) == []


def test_volume_without_a_claim_and_objects(world: World) -> None:
    from ansible_collections.clusterkit.storage.plugins.module_utils import _backup_run

    (world.volume / "a").write_text("a")
    world.good(world.item(), world.item(name="pv-2", namespace="", claim="", objects={}))
    found = _backup_run.listing(world.settings, [], [], objects="latest")
    with_claim = next(one for one in found if one["name"] == "pv-1")
    claim = with_claim["objects"]["items"][1]
    assert (claim["kind"], claim["metadata"]) == ("PersistentVolumeClaim", {"name": "data", "namespace": "web"})
    assert with_claim["objects"]["items"][0]["spec"]["claimRef"] == {"namespace": "web", "name": "data"}
    assert with_claim["objects_original"]["items"][1]["status"] == {"phase": "Bound"}
    assert {(one["namespace"], one["name"], one["latest"]) for one in found} == {
        ("web", "pv-1", True),
        ("", "pv-2", True),
    }
    assert _backup_run.listing(world.settings, [{"name": "pv-2"}], [], objects="none")[0]["name"] == "pv-2"
    assert _backup_run.listing(world.settings, [], ["none-such"], objects="none") == []
    world.back({"name": "pv-2", "namespace": "", "server_dir": str(world.share / "two")})
    assert names(world.share / "two") == ["a"]


def test_retention_is_asked_for_and_spares_the_last_good_one(world: World) -> None:
    (world.volume / "a").write_text("a")
    made = [world.good()["generation"] for _ in range(3)]
    assert len(world.generations()) == 3
    assert len(world.good(retention={"last": 2}, check_mode=True)["removed"]) == 2
    assert len(world.generations()) == 3
    kept = world.good(retention={"last": 2})
    assert [one[:8] for one in kept["removed"]] == [one[:8] for one in made[:2]]
    assert len(world.generations()) == 2
    # Another volume's generations have nothing to do with it, and a failed backup removes nothing.
    other = world.item(name="pv-2", server_dir=str(world.share / "missing"))
    outcome = world.back_up(world.item(), other, retention={"last": 1})
    assert [item["failed"] for item in outcome.items] == [False, True]
    assert len(world.generations()) == 1
    outcome = world.back_up(other, retention={"last": 1})
    assert outcome.problems and len(world.generations()) == 1
    assert not world.verify().problems


def test_check_mode_copies_nothing_and_says_what_it_would(world: World) -> None:
    (world.volume / "a").write_text("four")
    outcome = world.back_up(check_mode=True)
    assert outcome.more["created"] and outcome.changed and not (world.backup / "repository").exists()
    world.good()
    (world.volume / "b").write_text("five!")
    before = sorted(world.backup.rglob("*"))
    predicted = world.good(check_mode=True)
    assert (predicted["changed_files"], predicted["changed"], predicted["generation"]) == (1, True, "")
    world.restore(check_mode=True)
    assert sorted(world.backup.rglob("*")) == before
    assert not (world.folder / ".clusterkit").exists()


def test_progress_of_a_long_copy_can_be_watched(world: World) -> None:
    for number in range(7):
        (world.volume / f"f{number}").write_bytes(os.urandom(4 << 20))
    world.good(bandwidth=4096, progress_interval=1)
    lines = Path(world.settings.progress_file).read_text().splitlines()
    assert len(lines) >= 3, lines
    assert all(" web/pv-1: " in line for line in lines)
    assert any("/s" in line and "MiB" in line for line in lines)
    assert "generation" in lines[-1]


def test_repository_reached_by_sftp(restic_world: World) -> None:
    """The SFTP server of OpenSSH, without ssh between."""
    world = restic_world
    odd_tree(world.volume, 100)
    plain_names(world)
    before = picture(world.volume, holes=False, sockets=False)
    where = {
        "repository": f"sftp:nobody@backup:{world.backup}/far",
        "backend_options": ["sftp.command=/usr/lib/openssh/sftp-server"],
    }
    assert world.good(create=True, **where)["complete"]
    assert world.good(create=False, **where)["changed_files"] == 0
    assert (world.backup / "far/config").is_file() and not (world.backup / "repository").exists()
    shutil.rmtree(world.volume)
    world.volume.mkdir()
    world.back(**where)
    assert difference(before, picture(world.volume, holes=False, sockets=False)) == {}
