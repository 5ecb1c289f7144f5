# SPDX-License-Identifier: GPL-3.0-or-later
"""Paths that stay below a directory, with the kernel's own rules and without. Mounts: tests/server_dirs."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import _beneath
from ansible_collections.clusterkit.storage.plugins.module_utils._beneath import (
    NotBeneath,
    drop_project,
    exchange,
    look,
    open_below,
    open_child,
    open_root,
    parts_below,
    rename_to_free_name,
    sync,
)
from hypothesis import given
from hypothesis import strategies as st

NAMES = st.sampled_from(
    ["", ".", "..", "a", "b", "k8s", ".clusterkit", "x" * 255, "x" * 256, "ü" * 128, "a\0b", " ", "\n"]
)


@pytest.fixture(params=["openat2", "walk"])
def way(request: pytest.FixtureRequest) -> Iterator[str]:
    kernel = _beneath.kernel()
    offered = kernel.openat2
    kernel.openat2 = offered and request.param == "openat2"
    yield request.param
    kernel.openat2 = offered


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "a/b/c").mkdir(parents=True)
    (tmp_path / "a/link").symlink_to("b")
    (tmp_path / "a/file").write_text("x")
    descriptor = os.open(tmp_path, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


@given(st.lists(NAMES, max_size=5), st.sampled_from(["/srv/k8s", "/", "/a"]), st.booleans())
def test_what_is_accepted_lies_below(names: list[str], root: str, below: bool) -> None:
    path = (root.rstrip("/") if below else "") + "/" + "/".join(names)
    try:
        parts = parts_below(root, path)
    except NotBeneath:
        return
    assert os.path.normpath(path) == path, "nothing had to be normalised away"
    assert os.path.commonpath([root, path]) == root
    assert os.path.join(root, *parts) == path
    assert not {".clusterkit", "..", ".", ""} & set(parts)
    assert all(len(os.fsencode(part)) < 256 and "\0" not in part for part in parts)


@given(st.text(max_size=20))
def test_any_text_is_a_path_or_an_error(text: str) -> None:
    for path in (text, f"/srv/{text}"):
        try:
            assert "/srv/" + "/".join(parts_below("/srv", path)) in (path, "/srv/")
        except (NotBeneath, UnicodeEncodeError):
            continue


def test_open_below(directory: int, way: str, tmp_path: Path) -> None:
    for parts in ([], ["a"], ["a", "b", "c"]):
        descriptor = open_below(directory, parts)
        assert os.fstat(descriptor).st_ino == tmp_path.joinpath(*parts).stat().st_ino
        os.close(descriptor)
    for parts, words in ((["a", "link"], "symbolic link"), (["a", "link", "c"], "symbolic link")):
        with pytest.raises(NotBeneath, match=words):
            open_below(directory, parts)
    with pytest.raises(FileNotFoundError, match="a/x"):
        open_below(directory, ["a", "x", "y"])
    with pytest.raises(NotADirectoryError):
        open_below(directory, ["a", "file"])


def test_open_child(directory: int, way: str) -> None:
    os.close(open_child(directory, "a"))
    inner = open_below(directory, ["a"])
    with pytest.raises(OSError) as caught:
        open_child(inner, "link")
    assert caught.value.errno in (errno.ENOTDIR, errno.ELOOP)
    os.close(inner)


def test_a_way_of_more_than_4096_bytes(directory: int, way: str) -> None:
    parts = ["d" * 200] * 30
    current = os.dup(directory)
    for part in parts:
        os.mkdir(part, dir_fd=current)
        below = os.open(part, os.O_RDONLY, dir_fd=current)
        os.close(current)
        current = below
    found = open_below(directory, parts)
    assert os.fstat(found).st_ino == os.fstat(current).st_ino
    os.close(found)
    os.symlink("..", "link", dir_fd=current)
    with pytest.raises(NotBeneath, match="symbolic link"):
        open_below(directory, [*parts, "link", "x"])
    os.close(current)


def test_open_root(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "alias").symlink_to("real")
    os.close(open_root(str(tmp_path / "real")))
    os.close(open_root("/"))
    with pytest.raises(NotBeneath, match=r"alias is a symbolic link; name the directory itself"):
        open_root(str(tmp_path / "alias"))
    with pytest.raises(FileNotFoundError, match="missing"):
        open_root(str(tmp_path / "missing"))


@pytest.mark.parametrize("knows_flag", [True, False])
def test_rename_replaces_nothing(
    directory: int, tmp_path: Path, knows_flag: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_beneath.kernel(), "renameat2", knows_flag)
    inner = open_below(directory, ["a"])
    rename_to_free_name(inner, "b", directory, "moved")
    rename_to_free_name(inner, "file", directory, "moved-file")
    rename_to_free_name(inner, "link", directory, "moved-link")
    assert (tmp_path / "moved/c").is_dir() and (tmp_path / "moved-link").is_symlink()
    assert (tmp_path / "moved-file").read_text() == "x" and os.listdir(inner) == []
    (tmp_path / "a/new").mkdir()
    for taken in ("moved", "moved-file", "moved-link"):
        with pytest.raises(FileExistsError):
            rename_to_free_name(inner, "new", directory, taken)
    with pytest.raises(FileNotFoundError):
        rename_to_free_name(inner, "missing", directory, "x")
    os.close(inner)


def test_file_system_that_does_not_know_the_flag(
    directory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Library:
        def renameat2(self, *_arguments: Any) -> int:
            return -1

    monkeypatch.setattr(_beneath.kernel(), "libc", Library())
    monkeypatch.setattr(_beneath.ctypes, "get_errno", lambda: errno.EINVAL)
    assert not exchange(directory, "a", directory, "none")
    rename_to_free_name(directory, "a", directory, "z")
    assert (tmp_path / "z/b/c").is_dir()
    monkeypatch.setattr(_beneath.ctypes, "get_errno", lambda: errno.EXDEV)
    with pytest.raises(OSError) as caught:
        rename_to_free_name(directory, "z", directory, "a")
    assert caught.value.errno == errno.EXDEV


def test_exchange(directory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("file")
    assert exchange(directory, "a", directory, "file")
    assert (tmp_path / "a").read_text() == "file" and (tmp_path / "file/b/c").is_dir()
    with pytest.raises(FileNotFoundError):
        exchange(directory, "a", directory, "none")
    monkeypatch.setattr(_beneath.kernel(), "renameat2", False)
    assert not exchange(directory, "a", directory, "file")
    assert (tmp_path / "a").read_text() == "file"


def test_old_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: Any) -> int:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(_beneath, "_openat2", refuse)
    _beneath.kernel.cache_clear()
    assert not _beneath.kernel().openat2
    monkeypatch.undo()
    _beneath.kernel.cache_clear()


def test_kernel_that_is_not_sure(directory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """EAGAIN: a rename somewhere may have led out. It is asked again."""
    answers = [-1, -1, 5]

    class Library:
        def syscall(self, *_arguments: Any) -> int:
            return answers.pop(0)

    monkeypatch.setattr(_beneath.ctypes, "get_errno", lambda: errno.EAGAIN)
    kernel = _beneath._Kernel(Library(), openat2=True, renameat2=True, syncfs=True)  # type: ignore[arg-type] # a stand-in
    assert _beneath._openat2(kernel, directory, b"a", 0, 0) == 5


def test_look_and_sync(directory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert look(directory, "missing") is None
    assert look(directory, "a") is not None
    sync(directory)
    assert drop_project(directory) is False

    def fail(number: int) -> Any:
        def fsync(_descriptor: int) -> None:
            raise OSError(number, os.strerror(number))

        return fsync

    monkeypatch.setattr(os, "fsync", fail(errno.EINVAL))
    sync(directory)
    monkeypatch.setattr(os, "fsync", fail(errno.EIO))
    with pytest.raises(OSError):
        sync(directory)


def test_project_and_its_inheritance_are_dropped(directory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real thing, on XFS: tests/server_dirs."""
    import fcntl

    written = []

    def ioctl(_descriptor: int, request: int, data: Any) -> int:
        if request == _beneath._GET_ATTRIBUTES:
            data[:] = _beneath._ATTRIBUTES.pack(0x200 | 0x8, 1, 2, 42, 3)
        else:
            written.append(_beneath._ATTRIBUTES.unpack(data))
        return 0

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    assert drop_project(directory)
    assert written == [(0x8, 1, 2, 0, 3)]


def test_mounts_cannot_be_told_apart(directory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda *_arguments, **_more: "pos:\t0\n")
    with pytest.raises(OSError, match="does not tell mounts apart"):
        _beneath.mount_id(directory)


def test_mount_point_is_never_entered(directory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_beneath.kernel(), "openat2", False)
    inner = os.stat("a", dir_fd=directory).st_ino
    monkeypatch.setattr(_beneath, "mount_id", lambda descriptor: os.fstat(descriptor).st_ino == inner)
    with pytest.raises(NotBeneath, match="a is a mount point"):
        open_below(directory, ["a", "b"])
    with pytest.raises(OSError) as caught:
        open_child(directory, "a")
    assert caught.value.errno == errno.EXDEV


def test_many_are_flushed_at_once_where_that_tells_of_errors(directory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    many = [directory] * _beneath._MANY
    _beneath.sync_all(many)
    flushed: list[int] = []
    monkeypatch.setattr(os, "fsync", flushed.append)
    _beneath.sync_all([directory])
    assert flushed == [directory]

    class Library:
        def syncfs(self, *_arguments: Any) -> int:
            return -1

    monkeypatch.setattr(_beneath.kernel(), "syncfs", False)
    _beneath.sync_all(many)
    assert flushed == [directory, *many]
    monkeypatch.setattr(_beneath.kernel(), "syncfs", True)
    monkeypatch.setattr(_beneath.kernel(), "libc", Library())
    monkeypatch.setattr(_beneath.ctypes, "get_errno", lambda: errno.EIO)
    with pytest.raises(OSError) as caught:
        _beneath.sync_all(many)
    assert caught.value.errno == errno.EIO
