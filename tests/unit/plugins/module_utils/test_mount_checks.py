# SPDX-License-Identifier: GPL-3.0-or-later
"""Mounts that hang cost a bounded time, and never more than one process each. Here statvfs(3) hangs by a patch."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import _mount_checks
from ansible_collections.clusterkit.storage.plugins.module_utils._mount_checks import Check, MountChecks
from ansible_collections.clusterkit.storage.plugins.module_utils._mounts import Mount

real_statvfs = os.statvfs


def mount(number: int, path: str) -> Mount:
    return Mount(number, 1, f"0:{number}", "/", path, ("rw",), (), "nfs4", "nfs1:/a", ("rw", "addr=10.0.0.1"))


@pytest.fixture(autouse=True)
def statvfs(monkeypatch: pytest.MonkeyPatch) -> None:
    def behave(path: str) -> os.statvfs_result:
        if path.startswith("/hang"):
            time.sleep(60)
        if path.startswith("/stale"):
            raise OSError(errno.ESTALE, "Stale file handle")
        return real_statvfs(path)

    monkeypatch.setattr(os, "statvfs", behave)


@pytest.fixture
def lock_file(tmp_path: Path) -> Iterator[str]:
    path = tmp_path / "checks.lock"
    yield str(path)
    for pid in holders(path):
        os.kill(pid, 9)


def holders(path: Path) -> list[int]:
    """Return the processes that have the lock file open."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                if any(os.readlink(each) == str(path) for each in (process / "fd").iterdir()):  # noqa: PTH115 (an open file, not a link)
                    found.append(int(process.name))
            except OSError:
                continue
    return found


def holders_left(path: Path, count: int = 0) -> list[int]:
    """Return the same once there are no more than `count`: a busy machine ends children late, and nobody waits long."""
    deadline = time.monotonic() + 20
    while len(found := holders(path)) > count and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def check(lock_file: str, *mounts: Mount, timeout: float = 2) -> dict[int, Check]:
    checks = MountChecks(lock_file)
    deadline = time.monotonic() + timeout
    checks.start(mounts, deadline)
    return checks.wait(deadline)


def test_each_mount_gets_its_own_answer(lock_file: str, tmp_path: Path) -> None:
    found = check(lock_file, mount(1, str(tmp_path)), mount(2, "/stale"), mount(3, str(tmp_path / "gone")), timeout=10)
    assert {number: each.error for number, each in found.items()} == {1: 0, 2: errno.ESTALE, 3: errno.ENOENT}
    assert all(each.latency is not None and each.latency < 60 for each in found.values())


def test_fifty_dead_mounts_cost_one_deadline_and_leave_nothing(lock_file: str, tmp_path: Path) -> None:
    started = time.monotonic()
    found = check(lock_file, *(mount(number, "/hang") for number in range(50)), mount(99, str(tmp_path)), timeout=5)
    assert time.monotonic() - started < 50, "one deadline, not fifty; a busy machine may take its time"
    assert [each for each in found.values() if each == Check()] == [Check()] * 50
    assert found[99].error == 0
    assert holders_left(Path(lock_file)) == []


def test_a_child_that_has_not_begun_says_nothing_of_its_mount(lock_file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_mount_checks.os, "setsid", lambda: time.sleep(60))  # the first thing that a child does
    assert check(lock_file, mount(1, "/")) == {1: Check(begun=False)}
    assert holders_left(Path(lock_file)) == []


def test_answers_that_nobody_came_to_read_in_time_count(lock_file: str, tmp_path: Path) -> None:
    checks = MountChecks(lock_file)
    checks.start([mount(1, str(tmp_path)), mount(2, "/stale")], time.monotonic() + 60)
    deadline = time.monotonic()
    time.sleep(3)
    assert {number: each.error for number, each in checks.wait(deadline).items()} == {1: 0, 2: errno.ESTALE}


def test_no_check_is_started_when_the_time_for_that_is_over(lock_file: str, tmp_path: Path) -> None:
    checks = MountChecks(lock_file)
    checks.start([mount(1, str(tmp_path))], time.monotonic() + 60)
    checks.start([mount(2, str(tmp_path))], time.monotonic())
    found = checks.wait(time.monotonic() + 20)
    assert found[1].error == 0
    assert found[2] == Check(begun=False)


def test_a_child_that_cannot_be_killed_is_not_joined_by_a_second_one(
    lock_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_mount_checks.os, "kill", lambda _pid, _signal: None)  # as in state D
    assert check(lock_file, mount(1, "/hang"))[1] == Check()
    left = holders(Path(lock_file))
    assert len(left) == 1
    started = time.monotonic()
    for _run in range(3):
        found = check(lock_file, mount(1, "/hang"), mount(2, str(tmp_path)), timeout=1)
        assert found[1] == Check(earlier=True)
        assert found[2].error == 0
    assert holders_left(Path(lock_file), 1) == left
    assert time.monotonic() - started < 25
    monkeypatch.undo()
    os.kill(left[0], 9)
    os.waitpid(left[0], 0)
    assert check(lock_file, mount(1, str(tmp_path)), timeout=10)[1].error == 0


def test_a_check_waits_for_another_run_that_is_about_to_finish(lock_file: str, tmp_path: Path) -> None:
    hold = (
        "import fcntl, os, struct, sys, time\n"
        "descriptor = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)\n"
        "fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, struct.pack('hhqqi', fcntl.F_WRLCK, 0, 7, 1, 0))\n"
        "print('held', flush=True)\n"
        "time.sleep(0.5)\n"
    )
    other = subprocess.Popen([sys.executable, "-c", hold, lock_file], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    found = check(lock_file, mount(7, str(tmp_path)), timeout=20)
    assert found[7].error == 0
    other.communicate(timeout=20)


def test_a_hanging_child_holds_neither_our_output_nor_a_folder(lock_file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_mount_checks.os, "kill", lambda _pid, _signal: None)
    check(lock_file, mount(1, "/hang"))
    (pid,) = holders(Path(lock_file))
    monkeypatch.undo()
    process = Path("/proc", str(pid))
    opened = {os.readlink(each) for each in (process / "fd").iterdir()}  # noqa: PTH115 (open files, not links)
    assert {each for each in opened if not each.startswith("pipe:")} == {"/dev/null", lock_file}
    assert len([each for each in opened if each.startswith("pipe:")]) == 1, "only its own pipe"
    assert os.readlink(process / "cwd") == "/"  # noqa: PTH115 (as above)
    assert os.getsid(pid) == pid


def test_a_child_that_ends_without_a_word_is_no_answer(lock_file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _path: os._exit(1))
    started = time.monotonic()
    assert check(lock_file, mount(1, "/"), timeout=10)[1] == Check()
    assert time.monotonic() - started < 9


def test_no_descriptor_is_left_open(lock_file: str, tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 (a count)
    check(lock_file, mount(1, str(tmp_path)), mount(2, "/hang"))
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208 (as above)


def test_a_lock_file_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        MountChecks(str(tmp_path / "no folder" / "lock")).start([mount(1, "/")], time.monotonic() + 60)


def test_a_child_that_cannot_be_started_is_an_error_and_leaves_nothing(
    lock_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fork() -> int:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 (a count)
    monkeypatch.setattr(os, "fork", fork)
    with pytest.raises(BlockingIOError):
        MountChecks(lock_file).start([mount(1, "/")], time.monotonic() + 60)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208 (as above)
