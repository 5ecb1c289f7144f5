# SPDX-License-Identifier: GPL-3.0-or-later
"""Trees that are searched, measured and removed."""

from __future__ import annotations

import errno
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import _tree, _tree_removal
from ansible_collections.clusterkit.storage.plugins.module_utils._tree import (
    Moved,
    find_inode,
    measure,
    walk,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._tree_removal import remove_content
from hypothesis import given
from hypothesis import strategies as st

TREES = st.recursive(
    st.just(None), lambda inner: st.dictionaries(st.sampled_from("abcdef"), inner, max_size=4), max_leaves=25
).filter(lambda tree: tree is not None)


def build(place: Path, tree: dict[str, Any]) -> tuple[int, int]:
    """Return the number of files and directories below."""
    files, directories = 0, 0
    for name, inner in tree.items():
        if inner is None:
            (place / name).write_text(name)
            files += 1
        else:
            (place / name).mkdir()
            below = build(place / name, inner)
            files, directories = files + below[0], directories + below[1] + 1
    return files, directories


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


def deep(place: Path, depth: int) -> Path:
    for _number in range(depth):
        place = place / "d"
        place.mkdir()
        (place / "file").write_text("x")
    return place


@given(TREES)
def test_a_tree_is_measured_and_removed(tree: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        files, directories = build(Path(folder), tree)
        root = os.open(folder, os.O_RDONLY)
        size = measure(root, time.monotonic() + 60)
        assert (size.files, size.directories, size.complete) == (files, directories, True)
        inode = os.fstat(root).st_ino
        assert find_inode(root, {inode}) == inode
        for path in Path(folder).rglob("*"):
            assert find_inode(root, {path.stat().st_ino, 1}) == path.stat().st_ino
        assert find_inode(root, {1}) is None
        removal = remove_content(root)
        assert (removal.files, removal.directories, removal.failures) == (files, directories, 0)
        assert os.listdir(folder) == []
        os.close(root)


def test_size_is_what_du_says(root: int, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 100_000)
    os.link(tmp_path / "a", tmp_path / "b")
    with (tmp_path / "sparse").open("wb") as stream:
        stream.truncate(10**9)
    deep(tmp_path, 5)
    (tmp_path / "link").symlink_to("/")
    told = subprocess.run(["du", "-s", "--block-size=1", tmp_path], check=True, capture_output=True, text=True).stdout
    assert measure(root, time.monotonic() + 60).bytes == int(told.split()[0])


def test_more_levels_than_stay_open(root: int, tmp_path: Path) -> None:
    last = deep(tmp_path, _tree._OPEN_LEVELS + 20)
    before = len(os.listdir("/proc/self/fd"))
    assert find_inode(root, {last.stat().st_ino}) == last.stat().st_ino
    assert measure(root, time.monotonic() + 60).directories == _tree._OPEN_LEVELS + 20
    assert remove_content(root).failures == 0
    assert len(os.listdir("/proc/self/fd")) == before, "no descriptor is left"


def test_directory_that_is_moved_away_meanwhile(root: int, tmp_path: Path) -> None:
    """Below the levels that stay open the way back is "..", and it is not believed."""
    last = deep(tmp_path, _tree._OPEN_LEVELS + 5)
    elsewhere = tmp_path.parent / "elsewhere"

    def visit(entry: os.DirEntry[str]) -> bool:
        if last.exists():
            elsewhere.mkdir(exist_ok=True)
            if entry.inode() == (last / "file").stat().st_ino:
                last.rename(elsewhere / "moved")
        return True

    with pytest.raises(Moved, match="was moved meanwhile"):
        walk(root, visit)
    (elsewhere / "moved").rename(last)
    elsewhere.rmdir()

    def tick() -> None:
        if last.exists():
            inside = os.open(last, os.O_RDONLY)
            if os.listdir(inside) == []:
                last.rename(elsewhere)
            os.close(inside)

    removal = remove_content(root, tick)
    assert "was moved meanwhile; run again" in removal.problems[0]
    assert remove_content(root).failures == 0 and os.listdir(root) == []


def test_time_is_up(root: int, tmp_path: Path) -> None:
    deep(tmp_path, 3)
    assert not measure(root, time.monotonic() - 1).complete


def test_what_cannot_be_read(root: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep(tmp_path, 2)
    enter = _tree.open_child

    def refuse(directory: int, name: str) -> int:
        raise PermissionError(errno.EACCES, "Permission denied", name)

    monkeypatch.setattr(_tree, "open_child", refuse)
    assert not measure(root, time.monotonic() + 60).complete
    assert walk(root, lambda _entry: True) == ["d: Permission denied"]
    removal = remove_content(root)
    assert removal.problems == ["d: Permission denied"] and (tmp_path / "d").exists()

    def vanish(directory: int, name: str) -> int:
        raise FileNotFoundError(errno.ENOENT, "gone", name)

    monkeypatch.setattr(_tree, "open_child", vanish)
    assert walk(root, lambda _entry: True) == []
    remove_content(root)

    def mount_point(directory: int, name: str) -> int:
        raise OSError(errno.EXDEV, "x", name)

    monkeypatch.setattr(_tree, "open_child", mount_point)
    assert remove_content(root).problems == ["d: is a mount point, which is never crossed"]
    monkeypatch.setattr(_tree, "open_child", enter)
    assert remove_content(root).failures == 0


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.EPERM, "may be immutable"), (errno.EBUSY, "in use as a mount point"), (errno.EIO, "Input/output error")],
)
def test_files_that_cannot_be_removed(
    root: int, tmp_path: Path, number: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep(tmp_path, 3)
    unlink = os.unlink

    def refuse(name: str, *, dir_fd: int) -> None:
        if os.stat(name, dir_fd=dir_fd).st_ino == (tmp_path / "d/d/file").stat().st_ino:
            raise OSError(number, os.strerror(number), name)
        unlink(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", refuse)
    removal = remove_content(root)
    assert removal.failures == 1 and removal.problems[0].startswith("d/d/file: ") and words in removal.problems[0]
    assert (removal.files, removal.directories) == (2, 1)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["d", "d", "file"]


def test_only_the_first_failures_are_shown(root: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(50):
        (tmp_path / f"f{number}").write_text("x")

    def refuse(name: str, *, dir_fd: int) -> None:
        raise OSError(errno.EPERM, "no", name)

    monkeypatch.setattr(os, "unlink", refuse)
    removal = remove_content(root)
    assert removal.failures == 50 and len(removal.problems) == 20


def test_somebody_writes_meanwhile(root: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep(tmp_path, 2)
    rmdir = os.rmdir
    written: list[str] = []

    def write_first(name: str, *, dir_fd: int) -> None:
        if len(written) < 3:
            written.append(name)
            os.close(os.open(f"{name}/new", os.O_CREAT, dir_fd=dir_fd))
        rmdir(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "rmdir", write_first)
    removal = remove_content(root)
    assert removal.failures == 0 and os.listdir(root) == [] and len(written) == 3


def test_somebody_never_stops_to_write(root: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep(tmp_path, 1)

    def write_first(name: str, *, dir_fd: int) -> None:
        os.close(os.open(f"{name}/new", os.O_CREAT, dir_fd=dir_fd))
        raise OSError(errno.ENOTEMPTY, "not empty")

    monkeypatch.setattr(os, "rmdir", write_first)
    assert remove_content(root).problems == ["d: somebody keeps writing into it"]


def test_somebody_removes_meanwhile(root: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep(tmp_path, 2)
    unlink, rmdir = os.unlink, os.rmdir

    def unlink_twice(name: str, *, dir_fd: int) -> None:
        unlink(name, dir_fd=dir_fd)
        unlink(name, dir_fd=dir_fd)

    def rmdir_twice(name: str, *, dir_fd: int) -> None:
        rmdir(name, dir_fd=dir_fd)
        rmdir(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", unlink_twice)
    monkeypatch.setattr(os, "rmdir", rmdir_twice)
    assert remove_content(root).failures == 0 and os.listdir(root) == []


def test_a_directory_becomes_a_link_and_a_file_a_directory(
    root: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "d").mkdir()
    outside = tmp_path.parent / "outside"
    outside.mkdir(exist_ok=True)
    (outside / "precious").write_text("x")
    enter = _tree.open_child

    def swap(directory: int, name: str) -> int:
        if not (tmp_path / "d").is_symlink():
            (tmp_path / "d").rmdir()
            (tmp_path / "d").symlink_to(outside)
        return enter(directory, name)

    monkeypatch.setattr(_tree, "open_child", swap)
    assert remove_content(root).failures == 0
    assert os.listdir(root) == [] and (outside / "precious").exists()

    (tmp_path / "f").write_text("x")
    unlink = os.unlink

    def grow(name: str, *, dir_fd: int) -> None:
        unlink(name, dir_fd=dir_fd)
        os.mkdir(name, dir_fd=dir_fd)
        unlink(name, dir_fd=dir_fd)

    monkeypatch.setattr(_tree, "open_child", enter)
    monkeypatch.setattr(os, "unlink", grow)
    assert remove_content(root).failures == 0 and os.listdir(root) == []


def test_large_directories_go_in_batches(root: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_tree_removal, "_BATCH", 7)
    for number in range(50):
        (tmp_path / f"f{number}").write_text("x")
        (tmp_path / f"d{number}").mkdir()
    ticks: list[int] = []
    removal = remove_content(root, lambda: ticks.append(1))
    assert (removal.files, removal.directories, os.listdir(root)) == (50, 50, [])
    assert len(ticks) > 10


def test_directory_that_cannot_be_listed(root: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep(tmp_path, 1)
    scandir, calls = os.scandir, []

    def refuse(path: Any) -> Any:
        calls.append(path)
        if len(calls) == 2:
            raise OSError(errno.EIO, "Input/output error")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert remove_content(root).problems == ["d: Input/output error"]


def test_directories_at_the_top_go_side_by_side(root: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What needs a second look, or fails, is seen by the one who waits for all."""
    for number in range(20):
        (tmp_path / f"t{number}").mkdir()
        deep(tmp_path / f"t{number}", 3)
    unlink, rmdir = os.unlink, os.rmdir
    first: list[str] = []

    def refuse(name: str, *, dir_fd: int) -> None:
        if os.fstat(dir_fd).st_ino == (tmp_path / "t7/d").stat().st_ino:
            raise OSError(errno.EPERM, "no", name)
        unlink(name, dir_fd=dir_fd)

    def write_first(name: str, *, dir_fd: int) -> None:
        if name == "t3" and not first:
            first.append(name)
            os.close(os.open(f"{name}/new", os.O_CREAT, dir_fd=dir_fd))
        rmdir(name, dir_fd=dir_fd)

    with monkeypatch.context() as patched:
        patched.setattr(os, "unlink", refuse)
        patched.setattr(os, "rmdir", write_first)
        ticks: list[int] = []
        removal = remove_content(root, lambda: ticks.append(1))
    assert removal.failures == 1 and removal.problems[0].startswith("t7/d/file: cannot be removed")
    assert [path.name for path in tmp_path.iterdir()] == ["t7"] and ticks
    assert (removal.files, removal.directories) == (20 * 3, 20 * 4 - 2)

    def stop() -> None:
        raise KeyboardInterrupt

    for number in range(20):
        (tmp_path / f"u{number}").mkdir()
    with pytest.raises(KeyboardInterrupt):
        remove_content(root, stop)

    def broken(*_arguments: Any) -> bool:
        raise MemoryError

    monkeypatch.setattr(_tree_removal, "_remove_one", broken)
    for number in range(20):
        (tmp_path / f"v{number}").mkdir()
    with pytest.raises(MemoryError):
        remove_content(root)


def test_a_directory_at_the_top_that_is_moved_away(root: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep(tmp_path, 1)
    (tmp_path / "e").mkdir()
    leave = _tree.Descent.leave

    def moved(self: Any) -> Any:
        raise Moved(errno.ESTALE, "was moved meanwhile", "x")

    (tmp_path / "d/d").mkdir()
    monkeypatch.setattr(_tree.Descent, "leave", moved)
    removal = remove_content(root)
    assert removal.problems == ["d/x: was moved meanwhile; run again to remove the rest"]
    monkeypatch.setattr(_tree.Descent, "leave", leave)
    assert remove_content(root).failures == 0
