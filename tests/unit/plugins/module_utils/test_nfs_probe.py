# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import _mounts, _nfs_probe
from ansible_collections.clusterkit.storage.plugins.module_utils._mounts import Mount, MountTable
from ansible_collections.clusterkit.storage.plugins.module_utils._nfs_probe import Target
from ansible_collections.clusterkit.storage.plugins.module_utils._process import Finished, run


def child(place: Path, *, read_only: bool = False, mount: str = "exit 0") -> list[str]:
    """Return what runs inside the namespace, with a mount command that does not mount."""
    argv = _nfs_probe.child_command(["sh", "-c", mount, str(place)], read_only=read_only)
    return argv[argv.index("--") + 1 :]


def result(finished: Finished, *, read_only: bool = False, options: tuple[str, ...] = ()) -> str | None:
    return _nfs_probe._problem(finished, Target("nfs1", "/srv", options, read_only), 30)


def test_a_directory_that_can_be_written_is_fine_and_stays_empty(tmp_path: Path) -> None:
    assert result(run(child(tmp_path), timeout=30)) is None
    assert list(tmp_path.iterdir()) == []


def test_a_read_only_try_writes_nothing(tmp_path: Path) -> None:
    before = tmp_path.stat().st_mtime_ns
    assert result(run(child(tmp_path, read_only=True), timeout=30), read_only=True) is None
    assert tmp_path.stat().st_mtime_ns == before


def test_a_directory_that_is_gone_is_named_with_the_step(tmp_path: Path) -> None:
    problem = result(run(child(tmp_path / "gone"), timeout=30))
    assert problem == "nfs1:/srv: creating a file failed: No such file or directory"


def test_the_reason_of_the_server_reaches_the_message(tmp_path: Path) -> None:
    refuse = "echo 'mount.nfs: access denied by server while mounting nfs1:/srv' >&2; exit 32"
    problem = result(run(child(tmp_path, mount=refuse), timeout=30))
    assert problem == (
        "nfs1:/srv: access denied by server while mounting nfs1:/srv (the path is not exported to this host)"
    )
    hinted = result(run(child(tmp_path, mount=refuse), timeout=30), options=("noresvport",))
    assert hinted is not None
    assert "noresvport needs insecure in the export" in hinted


def test_a_server_that_does_not_answer_is_given_up(tmp_path: Path) -> None:
    problem = result(run(child(tmp_path, mount="sleep 60"), timeout=1))
    assert problem == "nfs1:/srv: no answer from the server within 30 s"


def test_a_server_that_answers_the_mount_only_is_told_apart() -> None:
    finished = Finished([], None, "doing mounting\ndoing creating a file\n", "", timed_out=True)
    problem = result(finished)
    assert problem is not None
    assert "mounted, but creating a file got no answer" in problem
    assert "grace period" in problem


@pytest.mark.parametrize("step", ["writing a file", "reading a file", "closing a file"])
def test_a_try_that_is_killed_leaves_no_file(tmp_path: Path, step: str) -> None:
    argv = child(tmp_path)
    # Stand still at the step, so that it can be killed there.
    position = next(index for index, word in enumerate(argv) if "def say" in word)
    argv[position] = argv[position].replace(
        f'say("doing", "{step}")', f'say("doing", "{step}"); __import__("time").sleep(60)'
    )
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    while process.stdout.readline().strip() != f"doing {step}":
        assert process.poll() is None
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    time.sleep(0.05)
    assert list(tmp_path.iterdir()) == []


def test_a_try_never_waits_like_a_hard_mount_and_shares_nothing() -> None:
    target = Target("nfs1", "/srv", ("hard", "timeo=600", "retrans=5", "bg", "retry=100", "nfsvers=4.1", "noresvport"))
    assert _nfs_probe.mount_options(target, 30) == [
        "nfsvers=4.1",
        "noresvport",
        *("soft", "retrans=1", "retry=0", "nosharecache", "timeo=50"),
    ]
    assert _nfs_probe.mount_options(Target("nfs1", "/srv", read_only=True), 30)[-1] == "ro"


@pytest.mark.parametrize(("deadline", "timeo"), [(0.1, 1), (30, 50), (60, 100), (300, 500)])
def test_a_try_waits_for_a_slow_server_as_its_deadline_allows(deadline: float, timeo: int) -> None:
    """A server under load may need longer than any fixed time; the kernel gives up before the deadline all the same."""
    options = _nfs_probe.mount_options(Target("nfs1", "/srv"), deadline)
    assert f"timeo={timeo}" in options


def test_the_place_to_mount_is_never_on_a_server() -> None:
    root = Mount(1, 0, "8:1", "/", "/", (), (), "ext4", "/dev/root", ())
    nfs = Mount(2, 1, "0:5", "/", "/mnt", (), (), "nfs4", "nfs1:/srv", ())
    assert _nfs_probe.place_to_mount(MountTable([root, nfs])) != "/mnt"
    assert _nfs_probe.place_to_mount(_mounts.read()).startswith("/")


def test_everything_wrong_with_the_targets_is_reported_at_once() -> None:
    _targets, problems = _nfs_probe.read_input(
        [
            {"server": "nfs1", "path": "srv"},
            {"server": "-o", "path": "/a/../b"},
            {"server": "nfs1", "path": "/srv", "options": ["hrad"]},
        ]
    )
    assert problems == [
        'targets[0].path: "srv" is not an absolute path without ".."',
        'targets[1].server: "-o" is not a host name or address',
        'targets[1].path: "/a/../b" is not an absolute path without ".."',
        'targets[2].options: "hrad" is not an option of nfs(5) or mount(8); did you mean "hard"?',
    ]


def test_an_ipv6_server_is_put_in_brackets() -> None:
    assert Target("2001:db8::1", "/srv").source == "[2001:db8::1]:/srv"


def test_without_a_local_directory_nothing_is_mounted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_nfs_probe, "_PLACES", ("/no/such/place", "/proc/self/cwd"))
    with pytest.raises(FileNotFoundError, match="none of /no/such/place, /proc/self/cwd is a local directory"):
        _nfs_probe.place_to_mount(_mounts.read())


def test_all_targets_are_tried_and_told_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []

    def ends(argv: list[str], *, timeout: float, env: dict[str, str]) -> Finished:
        assert timeout == 7
        assert "sbin" in env["PATH"]
        commands.append(argv)
        if "nfs2:/b" in argv:
            return Finished(argv, 32, "doing mounting\n", "mount.nfs: Connection refused", timed_out=False)
        return Finished(argv, 0, "doing done\n", "", timed_out=False)

    monkeypatch.setattr(_nfs_probe, "run", ends)
    targets = [Target("nfs1", "/a"), Target("nfs2", "/b", ("nfsvers=4.1",), read_only=True)]
    first, second = _nfs_probe.probe_all(targets, 7)
    assert (first["server"], first["ok"], first["msg"], first["options"]) == ("nfs1", True, "", [])
    assert (second["read_only"], second["ok"], second["options"]) == (True, False, ["nfsvers=4.1"])
    assert second["msg"] == "nfs2:/b: Connection refused (no NFS server listens there)"
    assert 0 <= first["seconds"] < 7
    assert all("mount" in argv for argv in commands)
    assert _nfs_probe.probe_all([], 7) == []


@pytest.mark.parametrize(
    ("stderr", "words"),
    [
        ("unshare: unshare failed: Operation not permitted\n", "unshare: unshare failed: Operation not permitted"),
        ("", ""),
    ],
)
def test_a_try_that_could_not_begin_says_why(stderr: str, words: str) -> None:
    finished = Finished([], 1, "", stderr, timed_out=False)
    assert result(finished) == f"nfs1:/srv: {words or 'the try ended with exit status 1'}"
