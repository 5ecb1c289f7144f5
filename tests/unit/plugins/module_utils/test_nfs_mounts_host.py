# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes wrong between plan and kernel: each failure belongs to its item, names its reason, and loses nothing."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import (
    _fstab,
    _mount_commands,
    _mount_input,
    _mount_options,
    _nfs_mounts_host,
    _nfs_mounts_servers,
    _nfsmount_conf,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._caller import Caller, CallerGoneError
from ansible_collections.clusterkit.storage.plugins.module_utils._mount_checks import Check
from ansible_collections.clusterkit.storage.plugins.module_utils._mounts import Mount, MountTable
from ansible_collections.clusterkit.storage.plugins.module_utils._nfs_mounts_host import Machine
from ansible_collections.clusterkit.storage.plugins.module_utils._nfs_mounts_result import Outcome
from ansible_collections.clusterkit.storage.plugins.module_utils._nfs_mounts_run import Runner
from ansible_collections.clusterkit.storage.plugins.module_utils._process import Finished

ROOT = Mount(1, 0, "8:1", "/", "/", ("rw",), (), "ext4", "/dev/root", ("rw",))
SHOWN = ("rw", "vers=4.2", "rsize=131072", "wsize=131072", "hard", "proto=tcp", "timeo=600", "retrans=2")


def nfs(source: str = "nfs1:/srv/a", path: str = "/data", number: int = 2, *super_options: str) -> Mount:
    return Mount(
        number,
        1,
        f"0:{number}",
        "/",
        path,
        ("rw", "relatime"),
        (),
        "nfs4",
        source,
        (*SHOWN, *super_options, "addr=10.0.0.1"),
    )


class Scripted(Machine):
    """A host whose commands end as a test says; the live table changes only where it says so."""

    def __init__(self, *mounts: Mount, fstab: str = "") -> None:
        super().__init__()
        self.mounts = [ROOT, *mounts]
        self.fstab = fstab
        self.directories = {"/data"}
        self.answers: dict[str, Callable[[Sequence[str]], Finished]] = {}
        self.systemd = False

    def read_table(self) -> MountTable:
        return MountTable(self.mounts)

    def read_fstab(self) -> str:
        return self.fstab

    def write_fstab(self, content: str) -> None:
        self.fstab = content

    def read_nfsmount_conf(self) -> dict[str, str]:
        return {}

    def is_directory(self, path: str) -> bool:
        return path in self.directories

    def has_entries(self, path: str) -> bool:
        assert path in self.directories
        return False

    def has_systemd(self) -> bool:
        return self.systemd

    def server_answers(self, address: str, port: int, timeout: float) -> bool:
        assert (address, port) == ("10.0.0.1", 2049)
        assert timeout <= 5
        return True

    def check(self, mounts: Sequence[Mount], timeout: float) -> dict[int, Check]:
        assert timeout <= 5
        return {mount.mount_id: Check(0, 0.001) for mount in mounts}

    def run(self, argv: Sequence[str], timeout: float) -> Finished:
        assert timeout > 0
        if argv[0] == "getent":
            return done(argv, stdout="10.0.0.1 STREAM\n::ffff:10.0.0.1 STREAM\n")
        return self.answers[argv[0]](argv)


def done(argv: Sequence[str], status: int = 0, *, stdout: str = "", stderr: str = "") -> Finished:
    return Finished(list(argv), status, stdout, stderr, timed_out=False)


def ends(status: int = 0, *, stdout: str = "", stderr: str = "") -> Callable[[Sequence[str]], Finished]:
    return lambda argv: done(argv, status, stdout=stdout, stderr=stderr)


def hangs(argv: Sequence[str]) -> Finished:
    return Finished(list(argv), None, "", "some words\n", timed_out=True)


def apply(host: Machine, options: str = "", *, path: str = "/data", state: str = "mounted") -> Outcome:
    items, problems = _mount_input.read_input(
        [{"path": path, "src": "nfs1:/srv/a", "options": options, "state": state}]
    )
    assert problems == []
    return Runner(host, timeout=60, check_mode=False).apply(items, None)


def test_a_mount_that_reports_success_without_mounting_is_not_believed() -> None:
    host = Scripted()
    host.answers["mount"] = ends()
    assert apply(host).failures == ["/data: mount reported success, but nothing is mounted"]
    assert host.fstab == ""


def test_a_mount_of_something_else_is_not_believed() -> None:
    host = Scripted()

    def mount(argv: Sequence[str]) -> Finished:
        host.mounts.append(nfs("nfs1:/srv/other"))
        return done(argv)

    host.answers["mount"] = mount
    assert apply(host).failures == ["/data: mount reported success, but nfs1:/srv/other is mounted"]


def test_options_that_the_kernel_did_not_take_are_named_with_what_may_decide_them() -> None:
    host = Scripted()

    def mount(argv: Sequence[str]) -> Finished:
        host.mounts.append(nfs())
        return done(argv)

    host.answers["mount"] = mount
    (failure,) = apply(host, "soft,timeo=50").failures
    assert failure.startswith("/data: is mounted, but not as wanted: ")
    assert "soft" in failure
    assert failure.endswith("(a mount that cannot be seen from here, such as a container's, may decide it)")
    assert host.fstab == ""


@pytest.mark.parametrize(
    ("finished", "words"),
    [
        (ends(32, stderr="mount.nfs: bad option"), "exit status 32: mount.nfs: bad option"),
        (hangs, "mount: no answer from 10.0.0.1 within 60 s: some words"),
    ],
)
def test_a_remount_that_fails_leaves_fstab_as_it_was(finished: Callable[[Sequence[str]], Finished], words: str) -> None:
    host = Scripted(nfs(), fstab="nfs1:/srv/a /data nfs defaults 0 0\n")
    host.answers["mount"] = finished
    outcome = apply(host, "nosuid")
    assert len(outcome.failures) == 1
    assert outcome.failures[0].endswith(words)
    assert host.fstab == "nfs1:/srv/a /data nfs defaults 0 0\n"
    assert not outcome.changed


def test_an_unmount_that_fails_for_another_reason_than_being_busy_says_why() -> None:
    host = Scripted(nfs())
    host.answers["umount"] = ends(1, stderr="umount: /data: must be superuser")
    (failure,) = apply(host, state="absent").failures
    assert failure == (
        "/data: nfs1:/srv/a is mounted (wanted is absent) and cannot be unmounted: "
        "umount /data: exit status 1: umount: /data: must be superuser"
    )


def test_an_unmount_without_answer_ends_for_this_item() -> None:
    host = Scripted(nfs())
    host.answers["umount"] = hangs
    assert apply(host, state="absent").failures == ["/data: umount: no answer from 10.0.0.1 within 60 s: some words"]


def test_other_options_are_named_when_a_busy_mount_keeps_them(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Scripted(nfs(), fstab="nfs1:/srv/a /data nfs defaults 0 0\n")
    host.answers["unshare"] = ends()
    host.answers["umount"] = ends(16, stderr="umount.nfs4: /data: device is busy")
    monkeypatch.setattr(host, "holders", lambda _path: [])  # nobody that can be seen
    (failure,) = apply(host, "soft").failures
    assert "soft" in failure
    assert failure.endswith("held by something that is no process seen here, such as another container")


def test_a_fstab_that_cannot_be_written_is_a_failure_and_systemd_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Scripted(nfs())

    def write(_content: str) -> None:
        raise OSError(errno.EROFS, "Read-only file system", "/etc/fstab")

    monkeypatch.setattr(host, "write_fstab", write)
    host.systemd = True
    (failure,) = apply(host).failures
    assert failure.startswith("/etc/fstab cannot be written: ")


@pytest.mark.parametrize("systemd", [True, False])
def test_systemd_that_refuses_is_a_failure_where_it_runs(systemd: bool) -> None:
    host = Scripted(nfs())
    host.systemd = systemd
    host.answers["systemctl"] = ends(1, stderr="Failed to connect to bus")
    expected = ["systemctl daemon-reload: exit status 1: Failed to connect to bus"] if systemd else []
    assert apply(host).failures == expected
    assert host.fstab == "nfs1:/srv/a /data nfs defaults 0 0\n"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.EROFS, "Read-only file system", "/new"), "/new: Read-only file system: /new"),
        (OSError("no room"), "/new: no room"),
    ],
)
def test_a_mount_point_that_cannot_be_made_fails_its_item(
    error: OSError, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = Scripted()

    def make(*_arguments: object) -> None:
        raise error

    monkeypatch.setattr(host, "make_directory", make)
    assert apply(host, path="/new").failures == [words]


@pytest.mark.parametrize(
    ("answer", "failures", "made"),
    [
        (ends(1, stderr="mkdir: cannot create directory"), ["the mount point cannot be made: sh -c"], False),
        (ends(0, stdout="made\n"), [], True),
        (ends(0), [], False),
        (hangs, ["sh: no answer from 10.0.0.1 within 60 s"], False),
    ],
)
def test_a_mount_point_on_a_server_is_made_by_a_child(
    answer: Callable[[Sequence[str]], Finished], failures: list[str], made: bool
) -> None:
    host = Scripted(nfs())

    def mount(argv: Sequence[str]) -> Finished:
        host.mounts.append(
            Mount(9, 2, "0:9", "/", "/data/new", ("rw", "relatime"), (), "nfs4", "nfs1:/srv/a", nfs().super_options)
        )
        return done(argv)

    host.answers |= {"sh": answer, "mount": mount}
    outcome = apply(host, path="/data/new")
    assert len(outcome.failures) == len(failures)
    assert all(words in failure for words, failure in zip(failures, outcome.failures, strict=True))
    assert ("make the mount point" in outcome.results[0].actions) == made


def test_a_retry_that_was_asked_for_is_kept() -> None:
    host = Scripted()
    commands: list[list[str]] = []

    def mount(argv: Sequence[str]) -> Finished:
        commands.append(list(argv))
        host.mounts.append(nfs())
        return done(argv)

    host.answers["mount"] = mount
    assert apply(host, "retry=2").failures == []
    assert commands == [["mount", "-t", "nfs", "-o", "retry=2", "nfs1:/srv/a", "/data"]]


def test_addresses_are_compared_as_addresses() -> None:
    assert _nfs_mounts_servers._normal_address("::ffff:10.0.0.1") == "10.0.0.1"
    assert _nfs_mounts_servers._normal_address("fe80::1%eth0") == "fe80::1"
    assert _nfs_mounts_servers._normal_address("not an address") == "not an address"


@pytest.mark.parametrize(
    ("stderr", "options", "words"),
    [
        ("mount.nfs: access denied by server", "", "access denied by server (the path is not exported to this host)"),
        ("mount.nfs: Operation not permitted", "noresvport", "needs insecure in the export)"),
        ("mount.nfs4: mounting x failed: No such file or directory", "", "does not export it)"),
        ("mount.nfs: Connection refused", "", "(no NFS server listens there)"),
        ("mount.nfs: Protocol not supported", "", "(the server does not serve this NFS version)"),
        ("mount.nfs: mount system call failed", "", "(most likely the server did not answer)"),
        ("mount.nfs: an internal error occurred", "", "an internal error occurred"),
        ("", "", "mount of nfs1:/srv failed with exit status 32"),
    ],
)
def test_the_server_s_reason_is_told_with_what_it_usually_means(stderr: str, options: str, words: str) -> None:
    finished = done(["mount"], 32, stderr=stderr)
    said = _mount_commands.failure(finished, "nfs1:/srv", _mount_options.parse(options))
    assert said.endswith(words)
    assert not said.startswith("mount.nfs")


# The machine itself.


def test_files_are_read_and_written_where_they_belong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_fstab, "FSTAB", str(tmp_path / "fstab"))
    monkeypatch.setattr(_nfsmount_conf, "DROP_IN", str(tmp_path / "nfsmount.conf.d/clusterkit.conf"))
    machine = Machine()
    assert machine.read_fstab() == ""
    machine.write_fstab("line\n")
    assert machine.read_fstab() == "line\n"
    machine.write_nfsmount_conf(_nfsmount_conf.DROP_IN, "Soft=True\n")
    assert Path(_nfsmount_conf.DROP_IN).read_text() == "Soft=True\n"
    machine.write_nfsmount_conf(_nfsmount_conf.DROP_IN, None)
    assert not Path(_nfsmount_conf.DROP_IN).exists()
    assert isinstance(machine.read_nfsmount_conf(), dict)


def test_the_machine_answers_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine()
    assert machine.is_directory(str(tmp_path))
    assert not machine.is_directory(str(tmp_path / "gone"))
    assert not machine.has_entries(str(tmp_path))
    (tmp_path / "mount.nfs").write_text("#!/bin/sh\n")
    assert machine.has_entries(str(tmp_path))
    monkeypatch.setattr(_nfs_mounts_host, "SEARCH_PATH", str(tmp_path))
    assert not machine.can_mount_nfs()
    (tmp_path / "mount.nfs").chmod(0o755)
    assert machine.can_mount_nfs()
    assert machine.has_systemd() == Path("/run/systemd/system").is_dir()
    assert any(mount.path == "/" for mount in machine.read_table().mounts)
    assert machine.holders(str(tmp_path / "gone")) == []
    assert not machine.server_answers("127.0.0.1", 1, 5)


def test_a_command_finds_its_program_on_the_path_of_administrators() -> None:
    finished = Machine().run(["sh", "-c", "echo $PATH"], 10)
    assert finished.stdout.strip() == _nfs_mounts_host.SEARCH_PATH


def test_a_mount_point_gets_its_owner(tmp_path: Path) -> None:
    Machine().make_directory(str(tmp_path / "a/b"), 0o750, os.getuid(), os.getgid())
    assert (tmp_path / "a/b").stat().st_mode & 0o7777 == 0o750


def test_numbers_and_names_of_users_and_groups() -> None:
    assert (_nfs_mounts_host.user_id(None), _nfs_mounts_host.group_id(None)) == (0, 0)
    assert (_nfs_mounts_host.user_id("4711"), _nfs_mounts_host.group_id("4711")) == (4711, 4711)
    assert (_nfs_mounts_host.user_id("root"), _nfs_mounts_host.group_id("root")) == (0, 0)


def gone() -> Caller:
    """Return a caller that does not wait any more."""
    caller = Caller()
    caller._told_to_end = True
    return caller


def test_nothing_is_changed_for_a_caller_who_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_fstab, "FSTAB", str(tmp_path / "fstab"))
    machine = Machine(gone())
    for change in (
        lambda: machine.write_fstab("line\n"),
        lambda: machine.write_nfsmount_conf(str(tmp_path / "conf"), "Soft=True\n"),
        lambda: machine.make_directory(str(tmp_path / "new"), 0o755, os.getuid(), os.getgid()),
        lambda: machine.remove_directory(str(tmp_path)),
        lambda: machine.run(["touch", str(tmp_path / "touched")], 10),
    ):
        with pytest.raises(CallerGoneError):
            change()
    assert list(tmp_path.iterdir()) == []


def test_a_step_that_meets_a_caller_who_is_gone_ends_the_whole_run(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Scripted(nfs("nfs1:/srv/b"), fstab="nfs1:/srv/b /data nfs defaults 0 0\n")

    def unmount(_argv: Sequence[str]) -> Finished:
        raise CallerGoneError

    host.answers |= {"unshare": ends(), "umount": unmount}
    monkeypatch.setattr(host, "write_fstab", None)
    with pytest.raises(CallerGoneError):
        apply(host)
    assert [mount.source for mount in host.mounts] == ["/dev/root", "nfs1:/srv/b"]


@pytest.mark.parametrize(
    ("said", "version"),
    [("mount.nfs: (linux nfs-utils 2.8.3)", (2, 8, 3)), ("mount.nfs: (linux nfs-utils 1.3.4)", (1, 3, 4)), ("?", None)],
)
def test_the_version_of_nfs_utils_is_asked_from_mount_nfs(
    said: str, version: tuple[int, ...] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_nfs_mounts_host, "SEARCH_PATH", str(tmp_path))
    assert Machine().nfs_utils_version() is None
    (tmp_path / "mount.nfs").write_text(f"#!/bin/sh\necho '{said}'\n")
    (tmp_path / "mount.nfs").chmod(0o755)
    monkeypatch.setattr(Machine, "run", lambda _self, _argv, _timeout: done([], stdout=said))
    assert Machine().nfs_utils_version() == version


def test_an_empty_directory_is_removed_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "data").touch()
    (tmp_path / "empty").mkdir()
    Machine().remove_directory(str(tmp_path / "empty"))
    with pytest.raises(OSError, match="not empty"):
        Machine().remove_directory(str(tmp_path / "full"))
    assert {path.name for path in tmp_path.iterdir()} == {"full"}


def test_mounts_are_checked_by_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checks = _nfs_mounts_host.MountChecks
    monkeypatch.setattr(_nfs_mounts_host, "MountChecks", lambda: checks(str(tmp_path / "lock")))
    found = Machine().check([nfs(path=str(tmp_path)), nfs(path=str(tmp_path / "gone"), number=3)], 60)
    assert {number: check.error for number, check in found.items()} == {2: 0, 3: errno.ENOENT}
