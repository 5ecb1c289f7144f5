# SPDX-License-Identifier: GPL-3.0-or-later
"""A crash or a second run must never leave half a file behind."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import threading
from pathlib import Path

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import _files


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def names_in(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_new_file_is_readable_by_all_whatever_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        _files.replace_file(str(tmp_path / "new"), "content\n")
    finally:
        os.umask(old)
    assert (tmp_path / "new").read_text() == "content\n"
    assert mode_of(tmp_path / "new") == 0o644


def test_existing_file_keeps_its_mode_unless_one_is_asked_for(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old")
    target.chmod(0o600)
    _files.replace_file(str(target), "new")
    assert mode_of(target) == 0o600
    _files.replace_file(str(target), "newer", mode=0o640)
    assert (target.read_text(), mode_of(target)) == ("newer", 0o640)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_existing_file_keeps_its_owner_and_setgid(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old")
    os.chown(target, 1234, 4321)
    target.chmod(0o2755)
    _files.replace_file(str(target), "new")
    now = target.stat()
    assert (now.st_uid, now.st_gid, stat.S_IMODE(now.st_mode)) == (1234, 4321, 0o2755)


def test_symlink_stays_and_its_target_gets_the_content(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "file").write_text("old")
    link = tmp_path / "link"
    link.symlink_to("real/file")
    _files.replace_file(str(link), "new")
    assert link.is_symlink()
    assert (tmp_path / "real" / "file").read_text() == "new"


def test_bytes_that_are_not_utf8_survive(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"/srv/\xff caf\xc3\xa9\n")
    content = _files.read_text(str(target))
    assert content is not None
    _files.replace_file(str(target), content)
    assert target.read_bytes() == b"/srv/\xff caf\xc3\xa9\n"


def test_absent_file_reads_as_none_and_removing_it_is_no_error(tmp_path: Path) -> None:
    assert _files.read_text(str(tmp_path / "absent")) is None
    _files.remove_file(str(tmp_path / "absent"))


@pytest.mark.parametrize("step", ["fsync", "fchmod"])
def test_failure_before_the_rename_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    target = tmp_path / "file"
    target.write_text("old")

    def fail(*_arguments: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(_files.os, step, fail)
    with pytest.raises(OSError, match="disk full"):
        _files.replace_file(str(target), "new")
    assert target.read_text() == "old"
    assert names_in(tmp_path) == ["file"]


def test_content_is_flushed_before_the_rename_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    real_fsync, real_rename = os.fsync, Path.rename

    def fsync(descriptor: int) -> None:
        steps.append("flush folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "flush file")
        real_fsync(descriptor)

    def rename(source: Path, target: Path) -> Path:
        steps.append("rename")
        return real_rename(source, target)

    monkeypatch.setattr(_files.os, "fsync", fsync)
    monkeypatch.setattr(Path, "rename", rename)
    _files.replace_file(str(tmp_path / "file"), "new")
    assert steps == ["flush file", "rename", "flush folder"]


def test_what_a_killed_run_left_behind_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / ".file.clusterkit-new").write_text("a longer half of something")
    _files.replace_file(str(tmp_path / "file"), "new")
    assert names_in(tmp_path) == ["file"]
    assert (tmp_path / "file").read_text() == "new"


def test_symlink_in_place_of_the_new_content_is_refused(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / ".file.clusterkit-new").symlink_to(victim)
    with pytest.raises(OSError):
        _files.replace_file(str(tmp_path / "file"), "new")
    assert victim.read_text() == "precious"


def test_many_writers_at_once_never_mix_their_contents(tmp_path: Path) -> None:
    target = tmp_path / "file"
    contents = [str(number) * 20_000 for number in range(8)]
    threads = [threading.Thread(target=_files.replace_file, args=(str(target), text)) for text in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert target.read_text() in contents
    assert names_in(tmp_path) == ["file"]


def test_a_writer_that_never_ends_does_not_block_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_files, "LOCK_SECONDS", 0.05)
    descriptor = _files._open_locked(tmp_path / ".file.clusterkit-new")
    try:
        with pytest.raises(TimeoutError, match="another run"):
            _files.replace_file(str(tmp_path / "file"), "new")
    finally:
        os.close(descriptor)


@pytest.mark.parametrize(("number", "harmless"), [(errno.EINVAL, True), (errno.EIO, False)])
def test_a_folder_that_cannot_be_flushed_is_harmless_where_that_does_not_exist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, harmless: bool
) -> None:
    def fsync(_descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(_files.os, "fsync", fsync)
    with contextlib.nullcontext() if harmless else pytest.raises(OSError, match=os.strerror(number)):
        _files.sync_folder(tmp_path)


def test_extended_attributes_are_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("old")
    given: list[tuple[str, bytes]] = []
    monkeypatch.setattr(_files.os, "listxattr", lambda _path: ["user.kept"])
    monkeypatch.setattr(_files.os, "getxattr", lambda _path, name: f"value of {name}".encode())
    monkeypatch.setattr(_files.os, "setxattr", lambda _descriptor, name, value: given.append((name, value)))
    _files.replace_file(str(tmp_path / "file"), "new")
    assert given == [("user.kept", b"value of user.kept")]


@pytest.mark.parametrize(("number", "content"), [(errno.ENOTSUP, "new"), (errno.ENOSYS, "new"), (errno.EIO, "old")])
def test_a_file_system_without_extended_attributes_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, content: str
) -> None:
    (tmp_path / "file").write_text("old")

    def listxattr(_path: object) -> list[str]:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(_files.os, "listxattr", listxattr)
    with contextlib.nullcontext() if content == "new" else pytest.raises(OSError, match=os.strerror(number)):
        _files.replace_file(str(tmp_path / "file"), "new")
    assert (tmp_path / "file").read_text() == content
    assert names_in(tmp_path) == ["file"]


def test_a_hard_link_in_place_of_the_new_content_is_refused(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / ".file.clusterkit-new").hardlink_to(victim)
    with pytest.raises(PermissionError, match="something else stands"):
        _files.replace_file(str(tmp_path / "file"), "new")
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("what", ["renamed", "renamed, and another began"])
def test_a_run_that_ended_while_its_lock_was_waited_for_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    beside = tmp_path / ".file.clusterkit-new"
    real, first = fcntl.flock, [True]

    def flock(descriptor: int, operation: int) -> None:
        real(descriptor, operation)
        if first.pop() if first else False:
            beside.rename(tmp_path / "file")
            if what != "renamed":
                beside.write_text("half")

    monkeypatch.setattr(_files.fcntl, "flock", flock)
    _files.replace_file(str(tmp_path / "file"), "new")
    assert (tmp_path / "file").read_text() == "new"
    assert names_in(tmp_path) == ["file"]


def test_a_complaint_names_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    def complaint(path: Path) -> str:
        with pytest.raises(OSError) as caught:
            path.read_bytes()
        return _files.complaint(caught.value)

    deep = tmp_path / "file/a/b"
    assert complaint(deep) == f"{tmp_path}/file is not a directory; {deep} has to lie in it"
    assert complaint(tmp_path) == f"{tmp_path}: Is a directory"
    assert _files.complaint(OSError("no number, no name")) == "no number, no name"
