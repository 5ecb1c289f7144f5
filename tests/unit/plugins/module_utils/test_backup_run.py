# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups, listings, verifications and restores, with programs that do, or do not do, what they are told."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import (
    _backup,
    _backup_process,
    _backup_restic,
    _backup_restic_call,
    _backup_rsync,
    _backup_rsync_record,
    _backup_rsync_store,
    _backup_run,
    _mounts,
    _restore_place,
    _restore_run,
    _restore_stage,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._backup import BackupError
from ansible_collections.clusterkit.storage.plugins.module_utils._backup_process import Ended
from ansible_collections.clusterkit.storage.plugins.module_utils._backup_run import Outcome
from ansible_collections.clusterkit.storage.plugins.module_utils._backup_settings import Settings
from ansible_collections.clusterkit.storage.plugins.module_utils._own_folder import Places
from ansible_collections.clusterkit.storage.tests.copying_programs import Programs

UID = "3f0a3c52-8a9e-4b55-9a0e-2f1f7f1a9c11"
VERSIONS = {
    "rsync": "rsync  version 3.2.7  protocol version 31\n",
    "restic": "restic 0.15.1 compiled with go1.19.8 on linux/amd64\n",
}
# What restic 0.14 to 0.18 says around the answer of a store that it cannot open.
CANNOT_OPEN, IS_THERE = "Fatal: unable to open config file", "Is there a repository at the following location?"


class World:
    def __init__(self, folder: Path, engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.share = folder / "share"
        self.volume = self.share / "vol"
        (self.volume / "sub").mkdir(parents=True)
        (self.volume / "a").write_text("a")
        (self.volume / "sub/b").write_text("bb")
        (self.volume / "link").symlink_to("a")
        os.mkfifo(self.volume / "fifo")
        password = "x" if engine == "restic" else None
        self.settings = Settings(
            str(folder / "backup"), engine, password=password, progress_file=str(folder / "log/progress"), parallel=2
        )
        self.table = folder / "etab"
        self.programs = Programs(folder / "store")
        self.versions = dict(VERSIONS)
        for module in (_backup_rsync, _backup_restic_call):
            monkeypatch.setattr(module, "follow", self.programs.follow)
            monkeypatch.setattr(module.subprocess, "run", self._version)
        monkeypatch.setattr(_backup_restic, "STAGES", str(folder / "stages"))

    def _version(self, argv: list[str], **_more: Any) -> subprocess.CompletedProcess[str]:
        if not self.versions[argv[0]]:
            raise FileNotFoundError(2, "No such file or directory", argv[0])
        return subprocess.CompletedProcess(argv, 0, self.versions[argv[0]], "")

    def back_up(
        self, *names: str, create: bool = True, check_mode: bool = False, retention: Any = None, **more: Any
    ) -> Outcome:
        items = [
            {
                "name": name,
                "namespace": "web",
                "claim": "data",
                "server_dir": str(self.volume),
                "objects": {"claim": {"kind": "X"}},
            }
            for name in names or ["pv-1"]
        ]
        volumes, problems = _backup.read_volumes(items)
        assert not problems
        settings = replace(self.settings, **more)
        return _backup_run.back_up(volumes, settings, create=create, retention=retention, check_mode=check_mode)

    def restore(self, check_mode: bool = False, allow_open: bool = True, **item: Any) -> Outcome:
        wanted = {"name": "pv-1", "namespace": "web", "server_dir": str(self.volume), "share": str(self.share), **item}
        assert _restore_run.read_items([wanted]) == []
        places = Places(nfsd=str(self.folder / "nfsd"), table=str(self.table))
        return _restore_run.restore([wanted], self.settings, places, allow_open=allow_open, check_mode=check_mode)

    def generations(self, objects: str = "none") -> list[dict[str, Any]]:
        return _backup_run.listing(self.settings, [], [], objects=objects)

    def verify(self, wanted: Any = (), sample: float = 100, data: float = 0, **more: Any) -> Outcome:
        arguments = {"scratch": str(self.folder / "scratch"), "seed": None, "check_mode": False, **more}
        return _backup_run.verify(wanted, self.settings, sample=sample, data=data, **arguments)

    def fail(self, word: str, status: int, errors: str, *, does_work: bool = True) -> None:
        self.programs.ends.append((word, Ended(status, errors)))
        self.programs.does_work = does_work

    def content(self) -> dict[str, str]:
        files = [(str(path.relative_to(self.volume)), path) for path in self.volume.rglob("*") if path.is_file()]
        return {name: path.read_text() for name, path in files if not name.startswith(".clusterkit/")}


@pytest.fixture(params=["rsync", "restic"])
def world(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, request.param, monkeypatch)


@pytest.fixture
def rsync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, "rsync", monkeypatch)


@pytest.fixture
def restic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, "restic", monkeypatch)


# --- backup ------------------------------------------------------------------------------------------------


def test_backup_listing_and_verification(world: World) -> None:
    assert world.back_up(check_mode=True).more["created"]
    first = world.back_up("pv-1", "pv-2")
    assert first.more["created"] and first.changed and not first.problems
    assert [item["files"] for item in first.items] == [2, 2]
    second = world.back_up(create=False, bandwidth=100, nice=5, ionice="idle")
    assert not second.more["created"] and second.changed and "web/pv-1" in second.diff["after"]
    predicted = world.back_up(create=False, check_mode=True, retention={"last": 1})
    assert len(predicted.items[0]["removed"]) == 2 and predicted.items[0]["generation"] == ""
    assert [one["name"] for one in world.generations()].count("pv-1") == 2
    assert _backup_run.listing(world.settings, [{"name": "pv-2", "namespace": "web"}], ["web"], objects="none")
    assert all(one["objects"] for one in world.generations("all"))
    assert sum(one["objects"] is not None for one in world.generations("latest")) == 2
    found = world.verify(data=5)
    assert not found.problems and not found.changed and [item["files"] for item in found.items] == [6, 6]
    assert not world.verify(sample=10, seed=3).problems
    assert world.verify(check_mode=True, data=5).items[0]["files"] == 0
    assert (
        "no generation 'zzzz'" in world.verify([{"namespace": "web", "name": "pv-1", "generation": "zzzz"}]).problems[0]
    )
    done = world.back_up(create=False, retention={"last": 1})
    assert len(done.items[0]["removed"]) == 2 and "web/pv-1" in done.diff["before"]
    lines = Path(world.settings.progress_file).read_text()
    assert "web/pv-1: generation" in lines and "verification" in lines


def test_password_and_address_are_no_arguments(restic: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME", raising=False)
    where: dict[str, Any] = {
        "repository": "rest:http://user:hidden@host/",
        "password": "secret-1",
        "environment": {"AWS_KEY": 7},
    }
    restic.back_up(**where, backend_options=["sftp.command=ssh x"])
    for argv, env in zip(restic.programs.calls, restic.programs.environments, strict=True):
        assert not [word for word in argv if "hidden" in word or "secret-1" in word]
        assert not [value for value in env.values() if "hidden" in value or "secret-1" in value]
        assert env["AWS_KEY"] == "7" and env["RESTIC_CACHE_DIR"] == "/var/cache/restic"
    restic.back_up(password=None, password_command="print it", repository="other")  # noqa: S106 - no secret
    assert restic.programs.environments[-1]["RESTIC_PASSWORD_COMMAND"] == "print it"  # noqa: S105 - no secret
    (problem,) = restic.back_up(create=False, **{**where, "repository": "rest:http://user:hidden@away/"}).problems
    assert "there is no repository at rest:http://***@away/" in problem and "hidden" not in problem


def test_directories_that_are_not_there(world: World) -> None:
    world.back_up()
    shutil.rmtree(world.volume)
    assert "No such file or directory" in world.back_up().problems[0]
    world.volume.symlink_to("/etc")
    outcome = world.back_up(retention={"last": 1})
    assert "is a symbolic link" in outcome.problems[0] and not outcome.changed


@pytest.mark.parametrize("found", ["", "rsync  version 3.0.9  protocol\nrestic 0.13.1 compiled"])
def test_programs_that_are_missing_or_too_old(world: World, found: str) -> None:
    world.back_up()
    world.versions = dict.fromkeys(world.versions, found)
    words = "too old" if found else "is not installed"
    with pytest.raises(BackupError, match=words):
        world.generations()
    with pytest.raises(BackupError, match=words):
        world.back_up(create=True)


def test_version_that_nobody_can_read_is_taken(world: World) -> None:
    world.versions = dict.fromkeys(world.versions, "built from source")
    assert not world.back_up().problems


def test_repository_that_is_not_there(world: World) -> None:
    if world.settings.engine == "rsync":
        with pytest.raises(BackupError, match=r"does not exist .*is the disk mounted"):
            world.back_up(create=False)
        Path(world.settings.repository).mkdir()
        with pytest.raises(BackupError, match="holds no backups"):
            world.back_up(create=False)
    else:
        assert "is the disk mounted" in world.back_up(create=False).problems[0]
    with pytest.raises(BackupError, match="is the disk mounted"):
        world.generations()


def test_repository_of_a_later_release(rsync: World) -> None:
    rsync.back_up()
    marker = Path(rsync.settings.repository) / _backup_rsync_store.MARKER
    marker.write_text('{"schema": 2}')
    with pytest.raises(BackupError, match="has schema 2; expected 1"):
        rsync.back_up()
    marker.write_text("[]")
    with pytest.raises(BackupError, match="is damaged: it holds no object"):
        rsync.back_up()
    (rsync.folder / "file").write_text("")
    with pytest.raises(BackupError, match="cannot be made"):
        rsync.back_up(repository=str(rsync.folder / "file/backup"))


@pytest.mark.parametrize(
    ("status", "errors", "words"),
    [
        (12, "", "wrong password"),
        (1, "Fatal: wrong password or no key found", "wrong password"),
        (11, "x", "is locked by another run"),
        (1, "unable to create lock in backend", "is locked"),
        (10, "x", "there is no repository"),
        (1, f"{CANNOT_OPEN}: unexpected HTTP response (401): 401 Unauthorized\n{IS_THERE}", "cannot be opened"),
        (1, f"{CANNOT_OPEN}: Stat: Access Denied.\n{IS_THERE}", "cannot be opened"),
        (1, f"{CANNOT_OPEN}: Head: dial tcp 10.0.0.1:443: connect: connection refused\n{IS_THERE}", "cannot be opened"),
        (1, f"{CANNOT_OPEN}: stat /repository/config: permission denied\n{IS_THERE}", "cannot be opened"),
        (1, "Fatal: something else", "restic: Fatal: something else"),
        (-9, "", "restic: exit status -9"),
    ],
)
def test_how_restic_fails(restic: World, status: int, errors: str, words: str) -> None:
    restic.back_up()
    restic.fail("backup", status, errors)
    (problem,) = restic.back_up(create=False).problems
    assert words in problem
    restic.fail("config", status, errors)
    if words != "there is no repository":
        with pytest.raises(BackupError, match=words):
            restic.back_up()
    restic.fail("snapshots", status, errors)
    with pytest.raises(BackupError, match=words):
        restic.generations()
    restic.fail("snapshots", status, errors)
    assert words in restic.back_up(create=False, retention={"last": 1}).problems[0]
    restic.fail("prune", status, errors)
    assert words in restic.back_up(create=False, retention={"last": 1}).problems[0]
    restic.fail("check", status, errors)
    assert words in restic.verify(data=100).problems[0]
    for word in ("restore", "ls"):
        restic.fail(word, status, errors)
        assert words in restic.restore().problems[0]


def test_files_that_restic_cannot_read(restic: World, monkeypatch: pytest.MonkeyPatch) -> None:
    vanished = json.dumps(
        {"message_type": "error", "error": {"Op": "lstat", "Err": 2}, "item": "/data/a"}, separators=(",", ":")
    )
    restic.fail("backup", 3, f"{vanished}\nwarning\n")
    (item,) = restic.back_up().items
    assert (item["vanished"], item["complete"], item["failed"]) == (1, True, False)
    ill = json.dumps(
        {"message_type": "error", "error": {"Op": "read", "Err": 5}, "item": "/data/a"}, separators=(",", ":")
    )
    new = json.dumps({"message_type": "error", "error": {"message": "permission denied"}, "item": "/data/b"})
    restic.fail("backup", 3, f"{vanished}\n{ill}\n{new}\n{{torn")
    outcome = restic.back_up(create=False)
    assert "/data/a: read: Input/output error; /data/b: permission denied" in outcome.problems[0]
    assert outcome.items[0]["generation"].startswith("f" * 60)
    assert [one["complete"] for one in restic.generations()] == [True, False]
    for path in ("data/none", "/data/a"):
        os.utime(restic.volume / "a")  # it has just been made
        restic.fail("backup", 3, json.dumps({"message_type": "error", "error": {}, "item": path}))
        (one,) = restic.back_up(create=False).items
        assert (one["vanished"], one["complete"]) == (1, True)
    monkeypatch.setattr(_backup_restic.time, "time", lambda: 2.0**33)
    restic.fail("backup", 3, json.dumps({"message_type": "error", "error": {}, "item": "data/a"}))
    assert "data/a: None: Input/output error" in restic.back_up(create=False).problems[0]
    monkeypatch.undo()
    restic = World(restic.folder / "again", "restic", monkeypatch)
    restic.back_up()
    restic.fail("backup", 3, "")
    assert restic.back_up(create=False).items[0]["msg"] == "exit status 3"
    restic.fail("backup", 3, f"{ill}")
    assert restic.back_up(create=False, check_mode=True).problems


def test_files_that_rsync_cannot_read(rsync: World) -> None:
    rsync.fail("rsync", 24, 'file has vanished: "/x/a"\nfile has vanished: "/x/b"\n')
    (item,) = rsync.back_up().items
    assert (item["vanished"], item["complete"]) == (2, True)
    rsync.fail("rsync", 23, "rsync: read errors mapping x: Input/output error (5)\n")
    outcome = rsync.back_up()
    assert "not everything could be copied" in outcome.problems[0] and not outcome.items[0]["complete"]
    folder = Path(rsync.settings.repository) / "web/pv-1"
    assert os.readlink(folder / "latest") == item["generation"]  # noqa: PTH115 - as text
    assert [one["complete"] for one in rsync.generations()] == [True, False]
    rsync.fail("rsync", 12, "rsync: connection unexpectedly closed\n")
    assert "rsync: rsync: connection unexpectedly closed" in rsync.back_up().problems[0]
    assert (folder / ".partial").exists()
    rsync.fail("rsync", 12, "again\n")
    rsync.back_up()
    assert (folder / ".resume.1").exists()
    assert rsync.back_up().items[0]["complete"]
    assert not (folder / ".partial").exists() and not (folder / ".resume.1").exists()
    rsync.fail("rsync", 11, "rsync: write failed: No space left on device (28)\n")
    assert "No space left on device" in rsync.back_up().problems[0] and not (folder / ".partial").exists()


def test_rsync_that_cannot_be_started(rsync: World, monkeypatch: pytest.MonkeyPatch) -> None:
    rsync.back_up()

    def missing(*_arguments: Any, **_more: Any) -> Ended:
        raise FileNotFoundError(2, "No such file or directory", "ionice")

    monkeypatch.setattr(_backup_rsync, "follow", missing)
    monkeypatch.setattr(_backup_restic_call, "follow", missing)
    assert "ionice: No such file or directory" in rsync.back_up().problems[0]
    with pytest.raises(BackupError, match="ionice"):
        _backup_restic.Restic(replace(rsync.settings, password="x")).generations()  # noqa: S106 - no secret


def test_a_volume_that_is_removed_meanwhile(rsync: World, monkeypatch: pytest.MonkeyPatch) -> None:
    real = rsync.programs.follow

    def follow(argv: Any, **more: Any) -> Ended:
        ended: Ended = real(argv, **more)
        shutil.rmtree(rsync.volume)
        return ended

    monkeypatch.setattr(_backup_rsync, "follow", follow)
    assert "was removed during the copy" in rsync.back_up().problems[0]
    assert rsync.generations() == []


def test_digests_that_no_list_has_are_computed(rsync: World) -> None:
    rsync.fail("rsync", 12, "killed\n")
    rsync.back_up()
    # The list of a run that was killed may stop anywhere.
    partial = Path(rsync.settings.repository) / "web/pv-1/.partial"
    (partial / "files.list").unlink()
    assert not rsync.back_up().problems and not rsync.verify().problems


def test_locks_and_second_names(rsync: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_backup, "stamp", lambda _seconds: "20260101T000000Z")
    names = [rsync.back_up().items[0]["generation"] for _number in range(3)]
    assert names == ["20260101T000000Z", "20260101T000000Z.1", "20260101T000000Z.2"]
    import fcntl

    with (Path(rsync.settings.repository) / "web/pv-1/.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        descriptor = os.open(lock.name, os.O_RDWR)
        with pytest.raises(BackupError, match="busy; wait for its end"):
            _backup_process.wait_for_lock(descriptor, "busy", 0.15)
        os.close(descriptor)


def test_damage_of_the_records(rsync: World) -> None:
    place = Path(rsync.back_up().items[0]["path"])
    (place / "objects.json").unlink()
    assert rsync.generations("latest")[0]["objects"] is None
    assert "objects.json: No such file or directory" in rsync.verify().problems[0]
    manifest = json.loads((place / "manifest.json").read_text())
    (place / "manifest.json").write_text(json.dumps({**manifest, "schema": 9}))
    assert not rsync.generations()[0]["complete"]
    (place / "manifest.json").write_text(json.dumps(manifest))
    (place / "files.list").unlink()
    assert "files.list: No such file" in rsync.verify().problems[0]
    (place.parent / "notes").mkdir()
    assert len(rsync.generations()) == 1


def test_damaged_generation_is_not_linked_from(rsync: World) -> None:
    old = Path(rsync.back_up().items[0]["path"])
    new = Path(rsync.back_up().items[0]["path"])
    (new / "data/a").chmod(0o600)
    is_ = (new / "data/a").stat()
    (new / "data/a").write_text("b")
    os.utime(new / "data/a", ns=(is_.st_atime_ns, is_.st_mtime_ns))
    (problem,) = rsync.verify().problems
    assert "a: has another content than was recorded" in problem
    assert rsync.generations()[1]["damaged"] and not rsync.generations()[1]["latest"]
    # What is older may be the same file.
    fresh = rsync.back_up().items[0]
    assert fresh["copied_bytes"] == 3 and old.exists()


def test_generation_that_cannot_be_removed(rsync: World, monkeypatch: pytest.MonkeyPatch) -> None:
    rsync.back_up()

    def refuse(_place: Path) -> None:
        raise PermissionError(1, "Operation not permitted", "x")

    monkeypatch.setattr(_backup_rsync_store, "remove", refuse)
    assert "cannot be removed: x: Operation not permitted" in rsync.back_up(retention={"last": 1}).problems[0]


def test_file_system_that_cannot_be_flushed(rsync: World, monkeypatch: pytest.MonkeyPatch) -> None:
    class Libc:
        @staticmethod
        def syncfs(_descriptor: Any) -> int:
            return -1

    monkeypatch.setattr(_backup_rsync_store.ctypes, "CDLL", lambda *_a, **_k: Libc)
    monkeypatch.setattr(_backup_rsync_store.ctypes, "get_errno", lambda: 5)
    assert "Input/output error" in rsync.back_up().problems[0]
    assert rsync.generations() == []


def test_stage_of_restic_that_cannot_be_made(restic: World, monkeypatch: pytest.MonkeyPatch) -> None:
    restic.back_up()
    (restic.folder / "file").write_text("")
    monkeypatch.setattr(_backup_restic, "STAGES", str(restic.folder / "file/stages"))
    assert "Not a directory" in restic.back_up(create=False).problems[0]


def test_totals_of_a_first_copy_are_counted_beside_it(rsync: World) -> None:
    state = _backup.Progress(0)
    with _backup_run.opened(str(rsync.volume)) as source:
        _backup_rsync_record.count(source, state)
    assert (state.total_files, state.total_bytes) == (6, 4)  # a link has the length of where it leads


def test_progress_is_written_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = _backup_run.ProgressLog(str(tmp_path / "log"), 0)
    log.of("a")(_backup.Progress(0, files=3))
    assert "a: 3 files" in (tmp_path / "log").read_text()
    monkeypatch.setattr(_backup_run, "_LOG_SIZE", 10)
    log.write("short")
    assert (tmp_path / "log").read_text() == "short\n"
    _backup_run.ProgressLog("", 0).of("a")(_backup.Progress(0))
    _backup_run.ProgressLog("", 0).write("nowhere")
    _backup_run.ProgressLog("/proc/none/x", 0).write("it cannot be written, which stops nothing")


def test_problems_in_words() -> None:
    assert Outcome(problems=["x"]).message == "a problem: x"
    assert Outcome(problems=list("abcdefg")).message == "7 problems: a; b; c; d; e; ..."


def test_no_room(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.back_up()

    class Full:
        f_bavail, f_frsize, f_bsize, f_files, f_favail, f_blocks, f_bfree = 1, 4096, 4096, 100, 100, 10, 5

    monkeypatch.setattr(os, "statvfs", lambda _place: Full)
    assert "are needed beside what is there, 4.0 KiB are free" in world.verify().problems[0]
    assert "4.0 KiB are free" in world.restore(check_mode=True).problems[0]
    Full.f_bavail, Full.f_favail = 10**6, 2
    assert "6 inodes are needed, 2 are free" in world.restore().problems[0]


def test_scratch_that_cannot_be_made(world: World) -> None:
    world.back_up()
    assert "/proc/none: No such file or directory" in world.verify(scratch="/proc/none/x").problems[0]


# --- restore -----------------------------------------------------------------------------------------------

GOOD = {"a": "a", "sub/b": "bb", "link": "a"}


def spoil(world: World) -> None:
    (world.volume / "a").write_text("spoilt")
    (world.volume / "more").write_text("more")


def test_a_whole_directory(world: World) -> None:
    world.back_up()
    spoil(world)
    assert world.restore(check_mode=True).changed and not (world.share / ".clusterkit").exists()
    outcome = world.restore(uid=UID)
    assert not outcome.problems and world.content() == GOOD
    kept = Path(outcome.items[0]["quarantined"])
    assert (kept / "data/more").read_text() == "more" and UID in kept.name
    new = world.restore(server_dir=str(world.share / "new"), share=None)
    assert not new.problems and new.items[0]["quarantined"] == ""


@pytest.mark.parametrize("exchange", [True, False])
def test_a_directory_that_has_to_stay(world: World, exchange: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not exchange:
        monkeypatch.setattr(_restore_place, "exchange", lambda *_a: False)
    world.back_up()
    spoil(world)
    world.volume.chmod(0o700)
    os.setxattr(world.volume, "user.mine", b"x")
    inode = world.volume.stat().st_ino
    outcome = world.restore(share=str(world.volume))
    assert not outcome.problems and world.content() == GOOD
    assert world.volume.stat().st_ino == inode and not os.listxattr(world.volume)
    assert {path.name for path in (Path(outcome.items[0]["quarantined"]) / "data").iterdir()} >= {"a", "more"}


@pytest.mark.parametrize("exchange", [True, False])
def test_single_paths(world: World, exchange: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not exchange:
        monkeypatch.setattr(_restore_place, "exchange", lambda *_a: False)
    world.back_up()
    spoil(world)
    (world.volume / "sub/b").write_text("spoilt")
    assert "has no 'none'" in world.restore(paths=["none"]).problems[0]
    outcome = world.restore(paths=["sub/b"])
    assert not outcome.problems and world.content() == {**GOOD, "a": "spoilt", "link": "spoilt", "more": "more"}
    assert (Path(outcome.items[0]["quarantined"]) / "data/sub/b").read_text() == "spoilt"
    shutil.rmtree(world.volume / "sub")
    assert not world.restore(paths=["sub/b"]).problems and world.content()["sub/b"] == "bb"


def test_without_exchange(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_restore_place, "exchange", lambda *_a: False)
    world.back_up()
    spoil(world)
    outcome = world.restore()
    assert not outcome.problems and world.content() == GOOD
    assert (Path(outcome.items[0]["quarantined"]) / "data/more").read_text() == "more"


def test_restored_data_that_is_not_as_recorded_stays_out(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.back_up()
    spoil(world)
    before = world.content()
    real = world.programs.follow

    def follow(argv: Any, **more: Any) -> Ended:
        ended: Ended = real(argv, **more)
        if "restore" in argv or "--out-format=%i" in argv:
            Path(f"/proc/self/fd/{more['cwd']}/data/a").write_text("worse")
        return ended

    monkeypatch.setattr(_backup_rsync, "follow", follow)
    monkeypatch.setattr(_backup_restic_call, "follow", follow)
    (problem,) = world.restore().problems
    assert "could not be restored as it was recorded, and the volume stays as it is: a: has 5 bytes, not 1" in problem
    assert world.content() == before and not list((world.share / ".clusterkit/restore").iterdir())


def test_restores_that_fail(world: World) -> None:
    world.back_up()
    before = world.content()
    word = "rsync" if world.settings.engine == "rsync" else "restore"
    world.fail(word, 1, "it broke\n", does_work=False)
    assert "it broke" in world.restore().problems[0]
    left = world.share / ".clusterkit/restore"
    assert len(list(left.iterdir())) == 1  # the next one goes on from there
    world.fail(word, 1, "No space left on device\n", does_work=False)
    assert "No space left" in world.restore().problems[0]
    assert list(left.iterdir()) == [] and world.content() == before
    assert "there is no backup of it" in world.restore(name="pv-9").problems[0]
    (world.share / "file").write_text("")
    assert "is no directory" in world.restore(server_dir=str(world.share / "file")).problems[0]
    assert "No such file" in world.restore(server_dir=str(world.share / "none/new")).problems[0]
    assert "No such file" in world.restore(server_dir=str(world.share / "none"), paths=["a"]).problems[0]
    (world.share / "link").symlink_to(world.volume)
    assert (
        "symbolic link"
        in world.restore(server_dir=str(world.share / "link/x"), share=str(world.share / "link")).problems[0]
    )
    assert "No such file" in world.restore(server_dir="/none/x/y", share="/none/x").problems[0]
    assert world.content() == before
    assert not world.restore().problems


def test_folder_of_somebody_else(world: World) -> None:
    world.back_up()
    (world.share / ".clusterkit").mkdir(mode=0o777)
    (world.share / ".clusterkit").chmod(0o777)
    assert "expected user" in world.restore().problems[0]


def test_open_files(world: World) -> None:
    world.back_up()
    found = (world.volume / "a").stat()
    assert not world.restore(allow_open=False, server_dir=str(world.share / "new")).problems
    client = world.folder / "nfsd/clients/7"
    client.mkdir(parents=True)
    (client / "info").write_text('name: "node1"\n')
    device = next(
        mount.device
        for mount in [_mounts.read().find(str(world.share)).inside or _mounts.read().find(str(world.share)).top]
        if mount
    )
    major, minor = map(int, device.split(":"))
    (client / "states").write_text(
        f'- 0x01: {{ type: open, superblock: "{major:02x}:{minor:02x}:{found.st_ino}", filename: "a" }}\n'
    )
    assert "is open by" in world.restore(allow_open=False).problems[0]
    assert not world.restore(allow_open=False, server_dir=str(world.share / "new2")).problems
    # What is not open by now may have been before the server was booted.
    (client / "states").write_text("")
    for name, text in (("threads", "8\n"), ("v4_end_grace", "N\n")):
        (world.folder / "nfsd" / name).write_text(text)
    assert "run it again when its grace period is over" in world.restore(allow_open=False).problems[0]
    assert not world.restore(allow_open=False, server_dir=str(world.share / "new3")).problems
    (world.folder / "nfsd/v4_end_grace").write_text("Y\n")
    (client / "states").write_text(
        f'- 0x01: {{ type: open, superblock: "{major:02x}:{minor:02x}:1", filename: "a" }}\n'
    )
    assert not world.restore(allow_open=False).problems


def test_wrong_lists_of_restores() -> None:
    item = {"name": "pv-1", "server_dir": "/srv/a"}
    assert _restore_run.read_items([item, {**item, "server_dir": "/srv/b"}]) == []
    for more, words in (
        ({"server_dir": "a"}, "not an absolute path"),
        ({"share": "/srv/x"}, "/srv/a does not lie in /srv/x"),
        ({"uid": "../x"}, "is no uid"),
        ({"paths": ["/x"]}, "not relative"),
        ({"name": "-"}, "is not the name"),
    ):
        (problem,) = _restore_run.read_items([{**item, **more}])
        assert words in problem
    assert "lie in one another" in _restore_run.read_items([item, {**item, "server_dir": "/srv/a/b"}])[0]


# --- runs that were ended ----------------------------------------------------------------------------------


class Dead(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("exchange", [True, False])
@pytest.mark.parametrize("scope", ["directory", "content", "paths"])
def test_a_run_that_ended_while_it_placed(
    rsync: World, scope: str, exchange: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = rsync
    world.back_up()
    item: dict[str, Any] = {"share": str(world.volume)} if scope == "content" else {}
    item.update({"paths": ["a", "sub"]} if scope == "paths" else {})
    if not exchange:
        monkeypatch.setattr(_restore_place, "exchange", lambda *_a: False)
    for end in range(1, 60):
        spoil(world)
        calls = 0

        def dying(real: Any, end: int = end) -> Any:
            def call(*arguments: Any, **more: Any) -> Any:
                nonlocal calls
                calls += 1
                if calls >= end:
                    raise Dead
                return real(*arguments, **more)

            return call

        with monkeypatch.context() as patched:
            for name in ("exchange", "rename_to_free_name", "sync"):
                patched.setattr(_restore_place, name, dying(getattr(_restore_place, name)))
            try:
                world.restore(**item)
                break
            except Dead:
                pass
        outcome = world.restore(**item)
        assert not outcome.problems
        assert {**world.content(), "more": "more"} == {**GOOD, "more": "more"}, end
    else:
        raise AssertionError("it never came to its end")


def test_state_that_cannot_be_read(rsync: World) -> None:
    world = rsync
    world.back_up()
    world.fail("rsync", 1, "ended\n")
    assert world.restore().problems
    (state,) = (world.share / ".clusterkit/restore").glob("*/restore.json")
    content = json.loads(state.read_text())
    for text, words in (
        ("{", "cannot be read"),
        (json.dumps({**content, "schema": 9}), "has schema 9"),
        ("[]", "cannot be read"),
    ):
        state.write_text(text)
        outcome = world.restore()
        assert words in outcome.problems[0] and words in outcome.warnings[0]
        # Other directories do not wait for it.
        assert not world.restore(server_dir=str(world.share / f"other-{words[:3]}-{len(text)}")).problems
    # Of another generation: what lies there is of no use.
    state.write_text(json.dumps({**content, "generation": "other"}))
    assert not world.restore().problems and world.content() == GOOD


def test_way_that_is_barred_meanwhile(rsync: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world = rsync
    world.back_up()
    spoil(world)
    (world.volume / "sub/b").write_text("spoilt")
    real = _restore_place._exchange_path

    def barred(live: int, new: int, old: int, path: str, inode: int) -> None:
        if path == "sub/b":
            raise Dead
        real(live, new, old, path, inode)

    with monkeypatch.context() as patched:
        patched.setattr(_restore_place, "_exchange_path", barred)
        with pytest.raises(Dead):
            world.restore(paths=["a", "sub/b"])
    (world.volume / "sub").rename(world.share / "elsewhere")
    (world.volume / "sub").symlink_to(world.share / "elsewhere")
    outcome = world.restore(server_dir=str(world.share / "new"))
    assert not outcome.problems and "that cannot be done any more (sub is a symbolic link)" in outcome.warnings[0]
    (left,) = (world.share / ".clusterkit/trash").glob("*/data/.clusterkit-not-placed-*/sub/b")
    assert left.read_text() == "bb" and (world.share / "elsewhere/b").read_text() == "spoilt"
    assert "sub is a symbolic link" in world.restore(paths=["sub/b"]).problems[0]
    (world.volume / "sub").unlink()
    (world.volume / "sub").write_text("a file")
    assert "sub is no directory" in world.restore(paths=["sub/b"]).problems[0]
    assert not world.restore().problems and world.content() == GOOD


def test_place_that_somebody_else_took_meanwhile(rsync: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world = rsync
    world.back_up()
    real = _restore_place.finish

    def finish(target: Any, stage: Any) -> bool:
        (world.share / "new").mkdir()
        return real(target, stage)

    with monkeypatch.context() as patched:
        patched.setattr(_restore_place, "finish", finish)
        assert "has been made by somebody else" in world.restore(server_dir=str(world.share / "new")).problems[0]
    (world.share / "new").rmdir()
    outcome = world.restore()
    assert "that is done now" in outcome.warnings[0] and (world.share / "new/a").exists()


def test_stage_that_cannot_be_emptied(rsync: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world = rsync
    world.back_up()
    world.fail("rsync", 1, "ended\n")
    world.restore()

    class Removal:
        failures, problems = 1, ("x: busy",)

    with monkeypatch.context() as patched:
        patched.setattr(_restore_stage._tree_removal, "remove_content", lambda _fd: Removal)
        patched.setattr(_backup_rsync.Rsync, "resumes", False)
        assert "cannot be removed: x: busy" in world.restore().problems[0]


def test_attributes_of_file_systems_without_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(number: int) -> Any:
        def listxattr(_descriptor: int) -> list[str]:
            raise OSError(number, os.strerror(number))

        return listxattr

    monkeypatch.setattr(os, "listxattr", refuse(95))
    assert _restore_place._attribute_names(0) == []
    monkeypatch.setattr(os, "listxattr", refuse(5))
    with pytest.raises(OSError, match="Input/output"):
        _restore_place._attribute_names(0)


def test_project_of_a_quota_is_taken_over(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, int, bytes]] = []

    def ioctl(descriptor: int, request: int, buffer: Any) -> int:
        calls.append((descriptor, request, bytes(buffer)))
        if request == _restore_stage._GET_ATTRIBUTES:
            buffer[:] = _restore_stage._ATTRIBUTES.pack(0x200, 0, 0, 42, 0)
        return 0

    monkeypatch.setattr(_restore_stage.fcntl, "ioctl", ioctl)
    _restore_stage.take_over_project(3, 4)
    assert calls[1] == (4, _restore_stage._SET_ATTRIBUTES, _restore_stage._ATTRIBUTES.pack(0x200, 0, 0, 42, 0))
    calls.clear()


def test_lost_and_found_is_not_the_volumes() -> None:
    assert _restore_stage.kept_names("directory", mount_point=True) == ()
    assert _restore_stage.kept_names("content", mount_point=True) == (".clusterkit", "lost+found")
    assert _restore_stage.kept_names("content", mount_point=False) == (".clusterkit",)
