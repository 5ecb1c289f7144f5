# SPDX-License-Identifier: GPL-3.0-or-later
"""Listings of shares."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import _mounts, _statx, _users, _volume_dirs_info
from ansible_collections.clusterkit.storage.plugins.module_utils._beneath import kernel
from ansible_collections.clusterkit.storage.tests.server_disk import CLUSTER, World, objects


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    # What a power cut leaves is tested elsewhere; here a busy disk would only cost time.
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)
    return World(tmp_path, mounts=False)


def by_name(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {Path(one["path"]).name: one for one in result["directories"]}


@pytest.mark.parametrize("has_statx", [True, False])
def test_directories_are_as_stat_tells_them(world: World, has_statx: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not has_statx:

        class Old:
            openat2 = False
            libc = object()

        kernel()
        monkeypatch.setattr(_statx, "kernel", Old)
    for name in ("a", "new\nline", "\udcff"):
        (world.share / name).mkdir()
    (world.share / "a").chmod(0o2750)
    (world.share / "file").write_text("x")
    (world.share / "link").symlink_to("a")
    os.utime(world.share / "a", (0, 0))
    result = world.info()
    assert set(by_name(result)) == {"a", "new\nline", "\udcff", "neighbour"}
    told, found = by_name(result)["a"], (world.share / "a").stat()
    assert (told["device"], told["inode"], told["uid"], told["gid"]) == (
        found.st_dev, found.st_ino, found.st_uid, found.st_gid,
    )  # fmt: skip
    assert (told["mode"], told["mtime"], told["mount_point"]) == ("2750", 0.0, False)
    assert told["ctime"] == pytest.approx(found.st_ctime, abs=0.001)
    assert (told["birthtime"] is not None) == has_statx
    if has_statx:
        assert told["birthtime"] == pytest.approx(found.st_ctime, abs=60), "mtime was forged, this is not"
    (share,) = result["shares"]
    assert (share["others"], share["key"], share["clusters"], share["lease"]) == (2, ".", [], None)
    assert set(share["other_paths"]) == {f"{world.share}/file", f"{world.share}/link"}
    assert share["other_paths_complete"]
    assert result["complete"] and result["counts"] == {"directories": 4, "intents": 0, "quarantined": 0}


def test_owners_without_a_name(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(_number: int) -> Any:
        raise KeyError

    monkeypatch.setattr(_users.pwd, "getpwuid", unknown)
    monkeypatch.setattr(_users.grp, "getgrgid", unknown)
    told = by_name(world.info())["neighbour"]
    assert (told["owner"], told["group"]) == (str(told["uid"]), str(told["gid"]))


def test_parents(world: World) -> None:
    (world.share / "team/a/b").mkdir(parents=True)
    (world.share / "link").symlink_to("team")
    result = world.info(parents=[str(world.share / "team"), str(world.share / "gone"), "/elsewhere", str(world.share)])
    assert {"a", "team"} <= set(by_name(result)) and "b" not in by_name(result) and result["complete"]
    result = world.info(parents=[str(world.share / "link"), str(world.share / "neighbour/file")])
    assert not result["complete"]
    assert [problem.partition(": ")[2].partition(": ")[2] for problem in result["problems"]] == [
        "link is a symbolic link", "neighbour/file: Not a directory",
    ] or len(result["problems"]) == 2  # fmt: skip


def test_files_and_links_are_named_as_far_as_they_are_few(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    (world.share / "team").mkdir()
    for name in ("team/lost", "file"):
        (world.share / name).symlink_to("elsewhere")
    parents = [str(world.share / "team")]
    (share,) = world.info(parents=parents)["shares"]
    assert (share["others"], share["other_paths_complete"]) == (1, True)
    assert share["other_paths"] == [f"{world.share}/file", f"{world.share}/team/lost"]
    monkeypatch.setattr(_volume_dirs_info, "_NAMED", 1)
    (share,) = world.info(parents=parents)["shares"]
    assert (share["other_paths"], share["other_paths_complete"]) == ([f"{world.share}/file"], False)


def test_into_a_file(world: World) -> None:
    world.present()
    step = world.of_volume(world.volume(), objects=objects())
    world.run("intended", step)
    world.run("quarantined", world.step(world.volume("old")))
    dest = world.folder / "listing.jsonl"
    result = world.info(dest=str(dest), objects=True)
    assert result["directories"] == result["intents"] == result["quarantined"] == []
    assert result["counts"] == {"directories": 2, "intents": 1, "quarantined": 1}
    assert dest.stat().st_mode & 0o777 == 0o600
    header, *records = [json.loads(line) for line in dest.read_text().splitlines()]
    assert (header["kind"], header["schema"], header["complete"]) == ("DirectorySet", 1, True)
    assert header["shares"][0]["clusters"] == [CLUSTER]
    inline = world.info(objects=True)
    kinds = {"Directory": "directories", "Intent": "intents", "Quarantined": "quarantined"}
    for record in records:
        assert record in [{"kind": record["kind"], **one} for one in inline[kinds[record["kind"]]]]
    assert "objects" not in world.info()["quarantined"][0]


def test_sizes(world: World) -> None:
    volume = world.volume()
    (volume / "large").write_bytes(b"x" * 50_000)
    told = by_name(world.info(size=True))
    assert told["volume"]["size"] > 50_000 and told["volume"]["files"] == 4
    assert told["neighbour"]["size_complete"] and told["neighbour"]["files"] == 3
    told = by_name(world.info(size=True, only_for=[str(volume)], timeout=-1))
    assert told["volume"]["size_complete"] is False and "size" not in told["neighbour"]
    result = world.info(size=True, only_for=[str(volume), "/elsewhere"])
    assert result["problems"] == ["only_for: /elsewhere is not among the listed directories"]


def test_sizes_of_what_is_in_quarantine(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.present()
    for number, name in enumerate(("young", "old")):
        volume = world.volume(name)
        (volume / "large").write_bytes(b"x" * 50_000)
        world.clock = 2e9 - number * 86400
        world.quarantined(volume)
    world.clock = None
    assert "size" not in world.info()["quarantined"][0]
    result = world.info(quarantined_size=True)
    assert result["complete"] and "size" not in by_name(result)["neighbour"]
    for one in result["quarantined"]:
        assert one["size"] > 50_000 and one["files"] == 4 and one["size_complete"]
    measured: list[int] = []
    measure = _volume_dirs_info._tree.measure

    def watched(root: int, deadline: float) -> Any:
        measured.append(os.fstat(root).st_ino)
        return measure(root, deadline)

    with monkeypatch.context() as patched:
        patched.setattr(_volume_dirs_info, "_THREADS", 1)
        patched.setattr(_volume_dirs_info._tree, "measure", watched)
        result = world.info(quarantined_size=True, timeout=-1)
    assert not any(one["size_complete"] for one in result["quarantined"])
    by_age = sorted(result["quarantined"], key=lambda one: one["quarantined_at"])
    assert measured == [one["inode"] for one in by_age], "time is up for the young ones first"
    (world.trash / by_age[0]["entry"] / "data").rename(world.folder / "taken")
    assert [one.get("size") for one in world.info(quarantined_size=True)["quarantined"]].count(None) == 1


def test_open_state(world: World) -> None:
    with pytest.raises(ValueError, match="name the directories that it is wanted for"):
        world.info(open_state=True)
    volume = world.volume()
    result = world.info(open_state=True, only_for=[str(volume)])
    assert result["open_state"] == {"known": True, "nfsv3": False}
    assert by_name(result)["volume"]["open_by"] == [] and "open_by" not in by_name(result)["neighbour"]
    world.open_by(volume / "file")
    assert by_name(world.info(open_state=True, only_for=[str(volume)]))["volume"]["open_by"] == ["10.0.0.7:832"]
    (world.nfsd / "clients").rename(world.folder / "none")
    result = world.info(open_state=True, only_for=[str(volume)])
    assert result["open_state"]["known"] is False and "open_by" not in by_name(result)["volume"]


def test_mount_points_are_told_and_not_entered(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    (mount,) = _mounts.parse(f"9 1 8:1 / {world.share}/neighbour rw - xfs /dev/sdb rw")
    table = [*_mounts.read().mounts, mount]
    monkeypatch.setattr(_mounts, "read", lambda: _mounts.MountTable(table))
    told = by_name(world.info(size=True))["neighbour"]
    assert told["mount_point"] and "size" not in told


def test_directories_that_vanish_meanwhile(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = _volume_dirs_info.Statx.facts

    def vanish(self: Any, directory: int, name: str) -> Any:
        if name == "volume":
            os.rename(world.share / name, world.folder / "elsewhere")  # noqa: PTH104 - as another process would
        return facts(self, directory, name)

    world.volume()
    with monkeypatch.context() as patched:
        patched.setattr(_volume_dirs_info.Statx, "facts", vanish)
        assert set(by_name(world.info())) == {"neighbour"}

    def refuse(*_arguments: Any) -> int:
        raise OSError(errno.EACCES, "Permission denied", "x")

    def fail(*_arguments: Any) -> Any:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(_volume_dirs_info._tree, "measure", fail)
        result = world.info(size=True)
    assert result["problems"] == [f"{world.share}/neighbour: Input/output error"]
    opened = _volume_dirs_info.open_below
    with monkeypatch.context() as patched:
        patched.setattr(
            _volume_dirs_info,
            "open_below",
            lambda base, parts: refuse() if "neighbour" in parts else opened(base, parts),
        )
        assert world.info(size=True)["problems"] == [f"{world.share}/neighbour: x: Permission denied"]


def test_folders_that_cannot_be_read(world: World) -> None:
    world.present()
    step = world.quarantined(world.volume())
    (world.trash / step["entry"] / "manifest.json").write_text("{")
    result = world.info()
    assert not result["complete"] and f"trash/{step['entry']}: manifest.json is damaged" in result["problems"][0]
    (world.trash / step["entry"] / "manifest.json").unlink()
    assert world.info()["complete"] and world.info()["quarantined"] == []
    world.own.chmod(0o755)
    assert "with mode 0755; expected" in world.info()["problems"][0]


def test_share_that_cannot_be_read(world: World) -> None:
    with pytest.raises(ValueError, match=r"shares: /missing: /missing: No such file"):
        world.info(shares=["/missing"])
