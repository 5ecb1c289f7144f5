# SPDX-License-Identifier: GPL-3.0-or-later
"""The mounts of a host, on a simulated kernel that follows what was seen on a real one."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import (
    _fstab,
    _live_options,
    _mount_input,
    _mount_options,
    _nfs_mounts_run,
    _nfsmount_conf,
    _systemd_units,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._mount_checks import Check
from ansible_collections.clusterkit.storage.plugins.module_utils._mounts import Mount, MountTable, split_source
from ansible_collections.clusterkit.storage.plugins.module_utils._nfs_mounts_host import Machine, problems_of_host
from ansible_collections.clusterkit.storage.plugins.module_utils._nfs_mounts_result import Outcome
from ansible_collections.clusterkit.storage.plugins.module_utils._nfs_mounts_run import Runner
from ansible_collections.clusterkit.storage.plugins.module_utils._process import Finished
from ansible_collections.clusterkit.storage.tests.properties import examples
from hypothesis import given
from hypothesis import strategies as st

ADDRESSES = {"nfs1": "10.0.0.1", "nfs1.example.com": "10.0.0.1", "nfs2": "10.0.0.2", "dead": "10.0.0.9"}
SERVER_LIMIT = 131072


class SimulatedHost(Machine):
    """A host whose kernel, mount and umount behave as those of Debian 13 did."""

    def __init__(self, fstab: str = "") -> None:
        super().__init__()
        self.fstab = fstab
        self.known_fstab = fstab  # what systemd was told
        self.conf: dict[str, str] = {}
        self.version: tuple[int, ...] | None = (2, 8, 3)
        self.mounts = [Mount(1, 0, "8:1", "/", "/", ("rw", "relatime"), (), "ext4", "/dev/root", ("rw",))]
        self.directories = {"/", "/data", "/logs", "/data/sub"}
        self.full: set[str] = set()
        self.missing: set[str] = set()  # exports that the server refuses
        self.silent: set[str] = set()  # servers that do not answer
        self.stale: set[int] = set()  # mount ids
        self.checked: list[str] = []  # paths that were touched by a child
        self.busy: set[str] = set()
        self.commands: list[list[str]] = []
        self._number = 1

    # What the module asks.

    def read_table(self) -> MountTable:
        return MountTable(self.mounts)

    def read_fstab(self) -> str:
        return self.fstab

    def write_fstab(self, content: str) -> None:
        self.fstab = content

    def read_nfsmount_conf(self) -> dict[str, str]:
        return dict(self.conf)

    def write_nfsmount_conf(self, path: str, content: str | None) -> None:
        self.conf.pop(path, None)
        if content is not None:
            self.conf[path] = content

    def nfs_utils_version(self) -> tuple[int, ...] | None:
        return self.version

    def can_mount_nfs(self) -> bool:
        return True

    def has_systemd(self) -> bool:
        return True

    def is_directory(self, path: str) -> bool:
        self._touch(path)
        return path in self.directories

    def has_entries(self, path: str) -> bool:
        self._touch(path)
        return path in self.full

    def make_directory(self, path: str, mode: int, uid: int, gid: int) -> None:  # noqa: ARG002 (the signature of what it replaces)
        self._touch(path)
        self.directories.add(path)

    def remove_directory(self, path: str) -> None:
        self._touch(path)
        if path in self.full:
            raise OSError(errno.ENOTEMPTY, "Directory not empty", path)
        self.directories.remove(path)

    def holders(self, path: str) -> list[str]:  # noqa: ARG002 (the signature of what it replaces)
        return ["process 42 (writer)"]

    def server_answers(self, address: str, port: int, timeout: float) -> bool:
        assert port == 2049
        assert 0 < timeout <= 5
        return address not in {ADDRESSES[name] for name in self.silent}

    def check(self, mounts: Sequence[Mount], timeout: float) -> dict[int, Check]:
        assert 0 < timeout <= 5
        dead = {ADDRESSES[name] for name in self.silent}
        assert not dead & {mount.server_address for mount in mounts}, "a mount of a dead server was touched"
        self.checked += [mount.path for mount in mounts]
        return {each.mount_id: Check(errno.ESTALE if each.mount_id in self.stale else 0, 0.01) for each in mounts}

    def run(self, argv: Sequence[str], timeout: float) -> Finished:  # noqa: ARG002 (the signature of what it replaces)
        self.commands.append(list(argv))
        if argv[0] == "getent":
            address = ADDRESSES.get(argv[2])
            return self._finished(argv, 0 if address else 2, stdout=f"{address} STREAM\n" if address else "")
        if argv[0] == "systemctl":
            return self._systemctl(argv)
        if argv[0] == "umount":
            return self._umount(argv)
        if argv[0] == "unshare":
            return self._mount(argv[argv.index("mount", 6) :], only_try=True)
        if argv[0] == "sh":
            self.directories.add(argv[-1])
            return self._finished(argv, 0, stdout="made\n")
        assert argv[0] == "mount"
        return self._remount(argv) if "remount" in " ".join(argv) else self._mount(argv)

    # What the kernel does.

    def _touch(self, path: str) -> None:
        place = MountTable(self.mounts).find(path)
        for mount in (*place.stack, place.inside):
            assert mount is None or not mount.may_hang, f"{path} was touched: on a dead server this hangs"

    @staticmethod
    def _finished(argv: Sequence[str], status: int | None, *, stdout: str = "", stderr: str = "") -> Finished:
        return Finished(list(argv), status, stdout, stderr, timed_out=status is None)

    def mount(self, source: str, path: str, options: str = "", fstype: str = "nfs4") -> Mount:
        """Mount as a person would by hand."""
        given = _mount_options.parse(options)
        self.directories.add(path)
        place = MountTable(self.mounts).find(path)
        parent = place.top or place.inside
        assert parent is not None
        self._number += 1
        flags = _live_options.per_mount_flags(given)
        shown = [each for each in flags if each in ("ro", "rw", "nosuid", "nodev", "noexec", "relatime", "noatime")]
        device = f"0:{self._number}"
        super_options: tuple[str, ...] = ("rw",)
        if fstype == "nfs4":
            conf = _nfsmount_conf.MountDefaults(_nfsmount_conf.in_order(self.conf))
            device, super_options = self._superblock(source, [*given, *conf.added_to(given, source, path)])
        mount = Mount(self._number, parent.mount_id, device, "/", path, tuple(shown), (), fstype, source, super_options)
        self.mounts.append(mount)
        return mount

    def _superblock(self, source: str, options: Sequence[str]) -> tuple[str, tuple[str, ...]]:
        parts = split_source(source)
        assert parts is not None
        address = ADDRESSES[parts[0]]
        meaning = _mount_options.what_they_mean(options)
        version = "vers=4.2" if meaning.get("vers", "vers=4") == "vers=4" else meaning["vers"]
        connected = [each for each in self.mounts if each.connection == (address, version)]
        shown = [
            meaning.get("access", "rw"),
            version,
            *(
                f"{size}={min(int(meaning.get(size, f'{size}=0').partition('=')[2]) or SERVER_LIMIT, SERVER_LIMIT)}"
                for size in ("rsize", "wsize")
            ),
            meaning.get("recovery", "hard"),
            *(["softreval"] if meaning.get("softreval") == "softreval" else []),
            *(["noresvport"] if meaning.get("resvport") == "noresvport" else []),
            "proto=tcp",
            *(
                [each for each in connected[0].super_options if each.startswith("nconnect=")]
                if connected
                else [meaning["nconnect"]]
                if "nconnect" in meaning
                else []
            ),
            f"addr={address}",
        ]
        timing = (meaning.get("timeo", "timeo=600"), meaning.get("retrans", "retrans=2"))
        for each in self.mounts:
            compared = [option for option in each.super_options if not option.startswith(("timeo=", "retrans="))]
            if each.is_nfs and compared == shown and export_of(each.source) == export_of(source):
                return each.device, each.super_options
        return f"0:{100 + self._number}", (*shown, *timing)

    def _mount(self, argv: Sequence[str], *, only_try: bool = False) -> Finished:
        options, source, path = argv[-3:]
        parts = split_source(source)
        assert parts is not None
        if parts[0] in self.silent:
            return self._finished(argv, None)
        if source in self.missing:
            words = f"mount.nfs: access denied by server while mounting {source}\n"
            return self._finished(argv, 32, stderr=words)
        if not only_try:
            assert path in self.directories
            self.mount(source, path, options)
        return self._finished(argv, 0)

    def _remount(self, argv: Sequence[str]) -> Finished:
        options, path = argv[argv.index("-o") + 1].split(","), argv[-1]
        top = MountTable(self.mounts).find(path).top
        assert top is not None
        shown = [each for each in options if each in ("ro", "rw", "nosuid", "nodev", "noexec", "relatime", "noatime")]
        super_options = top.super_options
        if "bind" not in options:
            super_options = tuple("rw" if each == "ro" and "rw" in options else each for each in super_options)
        self.mounts = [
            Mount(**{**vars(each), "options": tuple(shown), "super_options": super_options}) if each is top else each
            for each in self.mounts
        ]
        return self._finished(argv, 0)

    def _umount(self, argv: Sequence[str]) -> Finished:
        table = MountTable(self.mounts)
        top = table.find(argv[-1]).top
        assert top is not None
        assert top.is_nfs, "only NFS may be unmounted"
        if "-l" not in argv and (argv[-1] in self.busy or table.below(top)):
            return self._finished(argv, 16, stderr=f"umount.nfs4: {argv[-1]}: device is busy\n")
        self.mounts.remove(top)
        return self._finished(argv, 0)

    def _systemctl(self, argv: Sequence[str]) -> Finished:
        """Do what systemd would: a trigger needs a line of the fstab that it was told of."""
        if argv[1] == "daemon-reload":
            self.known_fstab = self.fstab
            return self._finished(argv, 0)
        for entry in (line.entry for line in _fstab.parse(self.known_fstab + self.fstab)):
            if entry is None or _systemd_units.unit_of(entry.path, "automount") != argv[-1]:
                continue
            table = MountTable(self.mounts)
            if argv[1] == "stop":
                gone = [mount for mount in table.find(entry.path).stack if mount.fstype == "autofs"]
                assert not any(table.below(mount) for mount in gone), "systemd unmounts lazily what is over its trigger"
                self.mounts = [mount for mount in self.mounts if mount not in gone]
                return self._finished(argv, 0)
            assert entry.path in self.directories
            if table.find(entry.path).stack or entry not in [e.entry for e in _fstab.parse(self.known_fstab)]:
                break
            idle = [option.partition("=")[2] for option in entry.options if option.startswith("x-systemd.idle")]
            made = self.mount("systemd-1", entry.path, fstype="autofs")
            self.mounts[-1] = Mount(
                **{**vars(made), "super_options": ("rw", f"timeout={(idle or ['0'])[0]}", "direct")}
            )
            return self._finished(argv, 0)
        return self._finished(argv, 1, stderr=f"Failed to {argv[1]} {argv[-1]}")

    def shown(self, path: str) -> list[str]:
        return [mount.source for mount in MountTable(self.mounts).find(path).stack]


def export_of(source: str) -> str:
    """Return what shares a superblock: here the first folder of the path, as if that were the file system."""
    parts = split_source(source)
    assert parts is not None
    return parts[0] + parts[1].split("/")[1]


def item(path: str, src: str = "nfs1:/srv/a", options: str = "", **more: Any) -> dict[str, Any]:
    return {"path": path, "src": src, "options": options, **more}


def apply(
    host: SimulatedHost,
    *mounts: dict[str, Any],
    defaults: list[dict[str, Any]] | None = None,
    check_mode: bool = False,
    allow_abort_shared_io: bool = False,
) -> Outcome:
    items, problems = _mount_input.read_input(mounts)
    assert problems == []
    for_mounts = None
    if defaults is not None:
        for_mounts, problems = _nfsmount_conf.read_defaults(defaults)
        assert problems == []
    runner = Runner(host, timeout=60, check_mode=check_mode, allow_abort_shared_io=allow_abort_shared_io)
    return runner.apply(items, for_mounts)


def actions(outcome: Outcome) -> list[list[str]]:
    return [result.actions for result in outcome.results]


def ran(host: SimulatedHost, program: str) -> list[list[str]]:
    return [command for command in host.commands if command[0] == program]


def test_a_fresh_host_gets_mount_points_mounts_and_fstab_lines() -> None:
    host = SimulatedHost("# mine\n")
    outcome = apply(host, item("/data", options="rw,hard"), item("/new/one", "nfs2:/srv/b", "soft,bg,_netdev"))
    assert outcome.changed
    assert outcome.failures == []
    assert actions(outcome)[1] == ["make the mount point", "mount nfs2:/srv/b", "add its line in /etc/fstab"]
    assert host.fstab == ("# mine\nnfs1:/srv/a /data nfs rw,hard 0 0\nnfs2:/srv/b /new/one nfs soft,bg,_netdev 0 0\n")
    # bg would let mount report success and go on in the background.
    assert ["mount", "-t", "nfs", "-o", "soft,retry=0", "nfs2:/srv/b", "/new/one"] in host.commands
    assert len(ran(host, "systemctl")) == 1


def test_a_second_run_does_nothing_and_starts_no_command() -> None:
    host = SimulatedHost()
    wanted = [item("/data", options="rw,rsize=8192,soft,intr"), item("/logs", "nfs2:/srv/b", "vers=4,nconnect=2")]
    apply(host, *wanted)
    host.commands.clear()
    outcome = apply(host, *wanted)
    assert not outcome.changed
    assert outcome.diff == []
    assert host.commands == []


def test_another_source_mounted_by_hand_is_noticed_and_repaired() -> None:
    host = SimulatedHost("nfs1:/srv/a /data nfs defaults 0 0\n")
    host.mount("nfs1:/srv/b", "/data")
    outcome = apply(host, item("/data"))
    assert actions(outcome) == [["unmount nfs1:/srv/b", "mount nfs1:/srv/a"]]
    assert host.shown("/data") == ["nfs1:/srv/a"]


def test_a_changed_source_moves_the_live_mount_and_fstab() -> None:
    host = SimulatedHost()
    apply(host, item("/data"))
    apply(host, item("/data", "nfs2:/srv/a"))
    assert host.shown("/data") == ["nfs2:/srv/a"]
    assert host.fstab == "nfs2:/srv/a /data nfs defaults 0 0\n"


def test_options_that_drifted_are_repaired() -> None:
    host = SimulatedHost("nfs1:/srv/a /data nfs hard,nfsvers=4.1 0 0\n")
    host.mount("nfs1:/srv/a", "/data", "soft")
    outcome = apply(host, item("/data", options="hard,nfsvers=4.1"))
    assert outcome.failures == []
    assert {"hard", "vers=4.1"} <= set(MountTable(host.mounts).find("/data").stack[0].super_options)


def test_an_option_taken_out_of_the_list_is_taken_from_the_live_mount() -> None:
    host = SimulatedHost()
    apply(host, item("/data", options="soft,timeo=50"))
    apply(host, item("/data"))
    assert {"hard", "timeo=600"} <= set(MountTable(host.mounts).find("/data").stack[0].super_options)


def test_generic_flags_are_remounted_without_a_gap_and_without_touching_other_mounts() -> None:
    host = SimulatedHost()
    apply(host, item("/data"))
    outcome = apply(host, item("/data", options="ro,nosuid"))
    assert actions(outcome)[0][0] == "remount with ro, nosuid"
    assert ran(host, "umount") == []
    (remount,) = [command for command in ran(host, "mount") if "remount" in command[2]]
    # Without "bind" every mount of the superblock would become read-only.
    assert remount[2].startswith("remount,bind,ro,nosuid,dev,")
    assert not apply(host, item("/data", options="ro,nosuid")).changed


def test_a_read_only_superblock_becomes_writable() -> None:
    host = SimulatedHost("nfs1:/srv/a /data nfs defaults 0 0\n")
    host.mount("nfs1:/srv/a", "/data", "ro")
    outcome = apply(host, item("/data"))
    assert actions(outcome) == [["remount with rw"]]
    assert not apply(host, item("/data")).changed


@pytest.mark.parametrize("state", ["mounted", "unmounted", "absent"])
def test_something_mounted_over_the_mount_is_named_and_never_unmounted(state: str) -> None:
    host = SimulatedHost("nfs1:/srv/a /data nfs defaults 0 0\n")
    host.mount("nfs1:/srv/a", "/data")
    host.mount("none", "/data", fstype="tmpfs")
    outcome = apply(host, item("/data", state=state))
    assert "none (tmpfs) is mounted" in outcome.failures[0]
    assert host.shown("/data") == ["nfs1:/srv/a", "none"]
    assert host.fstab == "nfs1:/srv/a /data nfs defaults 0 0\n"


def test_a_disk_in_fstab_at_the_path_is_not_replaced() -> None:
    host = SimulatedHost("/dev/sdb1 /data ext4 defaults 0 2\n")
    outcome = apply(host, item("/data"))
    assert "/etc/fstab mounts /dev/sdb1 (ext4) at /data" in outcome.failures[0]
    assert host.commands == []
    assert host.fstab == "/dev/sdb1 /data ext4 defaults 0 2\n"


def test_stacked_mounts_are_taken_away_to_the_wanted_one() -> None:
    host = SimulatedHost("nfs1:/srv/a /data nfs defaults 0 0\n")
    host.mount("nfs1:/srv/a", "/data")
    host.mount("nfs2:/srv/x", "/data")
    host.mount("nfs1:/srv/b", "/data")
    outcome = apply(host, item("/data"))
    assert actions(outcome) == [["unmount nfs1:/srv/b", "unmount nfs2:/srv/x"]]
    assert host.shown("/data") == ["nfs1:/srv/a"]


def test_absent_unmounts_what_fstab_does_not_know() -> None:
    host = SimulatedHost()
    host.mount("nfs1:/srv/a", "/data")
    host.mount("nfs1:/srv/a", "/data")
    assert apply(host, item("/data", state="absent")).failures == []
    assert host.shown("/data") == []


def test_absent_takes_a_line_from_fstab_that_is_not_mounted() -> None:
    host = SimulatedHost("nfs1:/srv/a /data nfs defaults 0 0\nx /y ext4 defaults 0 0\n")
    outcome = apply(host, {"path": "/data", "state": "absent"})
    assert actions(outcome) == [["remove its line from /etc/fstab"]]
    assert host.fstab == "x /y ext4 defaults 0 0\n"
    assert not apply(host, {"path": "/data", "state": "absent"}).changed


def test_absent_keeps_the_fstab_line_of_a_busy_mount_and_fails_again_the_next_time() -> None:
    host = SimulatedHost("nfs1:/srv/a /data nfs defaults 0 0\n")
    host.mount("nfs1:/srv/a", "/data")
    host.busy.add("/data")
    for _run in (1, 2):
        outcome = apply(host, item("/data", state="absent"))
        assert "busy: held by process 42 (writer)" in outcome.failures[0]
        assert not outcome.changed
    assert host.fstab == "nfs1:/srv/a /data nfs defaults 0 0\n"


def test_a_busy_mount_with_another_source_fails_and_names_both() -> None:
    host = SimulatedHost("nfs1:/srv/b /data nfs defaults 0 0\n")
    host.mount("nfs1:/srv/b", "/data")
    host.busy.add("/data")
    outcome = apply(host, item("/data"), item("/logs", "nfs2:/srv/x"))
    assert outcome.failures == [
        "/data: nfs1:/srv/b is mounted (wanted is nfs1:/srv/a) and cannot be unmounted, "
        "it is busy: held by process 42 (writer)"
    ]
    assert host.fstab == "nfs1:/srv/b /data nfs defaults 0 0\nnfs2:/srv/x /logs nfs defaults 0 0\n"


def test_a_mount_that_holds_another_mount_names_it() -> None:
    host = SimulatedHost()
    host.mount("nfs1:/srv/b", "/data")
    host.mount("nfs1:/srv/c", "/data/sub")
    outcome = apply(host, item("/data"))
    assert "mounted below it: /data/sub" in outcome.failures[0]


def test_the_old_mount_stays_when_the_new_one_would_not_work() -> None:
    # Without any mount, what uses the path would fill the local disk.
    host = SimulatedHost("nfs1:/srv/b /data nfs defaults 0 0\n")
    host.mount("nfs1:/srv/b", "/data")
    host.missing.add("nfs1:/srv/a")
    outcome = apply(host, item("/data"))
    assert "access denied by server" in outcome.failures[0]
    assert "nfs1:/srv/b stays mounted" in outcome.failures[0]
    assert host.shown("/data") == ["nfs1:/srv/b"]
    assert host.fstab == "nfs1:/srv/b /data nfs defaults 0 0\n"
    assert not outcome.changed


def test_a_mount_that_fails_does_not_reach_fstab_and_the_others_are_done() -> None:
    host = SimulatedHost()
    host.missing.add("nfs1:/srv/a")
    outcome = apply(host, item("/data"), item("/logs", "nfs2:/srv/x"))
    assert len(outcome.failures) == 1
    assert outcome.changed
    assert host.fstab == "nfs2:/srv/x /logs nfs defaults 0 0\n"


def test_a_silent_server_is_waited_for_once_and_not_for_each_of_its_mounts() -> None:
    host = SimulatedHost()
    host.silent.add("dead")
    wanted = [item(f"/dead{number}", f"dead:/srv/{number}") for number in range(50)]
    outcome = apply(host, *wanted, item("/logs", "nfs2:/srv/x"))
    assert len(outcome.failures) == 50
    assert any("no answer from dead within 60 s" in failure for failure in outcome.failures)
    assert any("not tried: dead gave no answer to mount for /dead" in failure for failure in outcome.failures)
    assert sum("dead:" in " ".join(command) for command in ran(host, "mount")) <= 2 * _nfs_mounts_run.PARALLEL
    assert host.shown("/logs") == ["nfs2:/srv/x"]


def test_a_right_mount_of_a_silent_server_is_not_touched() -> None:
    host = SimulatedHost("dead:/srv/a /data nfs defaults 0 0\n")
    host.mount("dead:/srv/a", "/data")
    host.silent.add("dead")
    outcome = apply(host, item("/data", "dead:/srv/a"))
    assert not outcome.changed
    assert outcome.failures == []
    assert host.commands == []


def test_systemd_is_not_told_to_look_at_a_mount_of_a_silent_server() -> None:
    # Its fstab generator looks at every mount point, and process 1 waits for it: seen to stand still for 90 s.
    host = SimulatedHost()
    host.mount("dead:/srv/a", "/data")
    host.silent.add("dead")
    outcome = apply(host, item("/logs", "nfs2:/srv/x"))
    assert outcome.failures == []
    assert "nfs2:/srv/x /logs" in host.fstab
    assert ran(host, "systemctl") == []
    assert "systemd was not told of the new /etc/fstab: 10.0.0.9 does not answer" in outcome.warnings[0]


def test_a_mount_point_inside_an_nfs_mount_is_made_by_a_child_with_a_deadline() -> None:
    host = SimulatedHost()
    outcome = apply(host, item("/data"), item("/data/deep", "nfs2:/srv/x"))
    assert outcome.failures == []
    assert host.shown("/data/deep") == ["nfs2:/srv/x"]
    (command,) = ran(host, "sh")
    assert command[-1] == "/data/deep"


def test_mounts_below_mounts_go_first_and_come_last() -> None:
    host = SimulatedHost()
    wanted = [item("/data/sub", "nfs2:/srv/x"), item("/data")]
    apply(host, *wanted)
    outcome = apply(host, *({**each, "state": "absent"} for each in reversed(wanted)))
    assert outcome.failures == []
    assert [mount.path for mount in host.mounts] == ["/"]


def test_a_mount_that_would_hide_another_one_is_refused() -> None:
    host = SimulatedHost()
    host.mount("/dev/sdb1", "/data/sub", fstype="ext4")
    outcome = apply(host, item("/data"))
    assert outcome.failures == ["/data: a mount here would hide /data/sub (/dev/sdb1, ext4)"]
    assert host.shown("/data") == []
    assert host.commands == []


def test_all_mounts_that_would_be_hidden_are_named_and_none_is_touched() -> None:
    """Their order in mountinfo is that of their making, which differs from host to host."""
    host = SimulatedHost()
    apply(host, item("/data/ours", "nfs2:/srv/x"))
    host.mount("nfs1:/srv/y", "/data/two", fstype="nfs4")
    host.mount("/dev/sdb1", "/data/one", fstype="ext4")
    before = list(host.mounts)
    outcome = apply(host, item("/data/ours", "nfs2:/srv/x"), item("/data"))
    assert outcome.failures == [
        "/data: a mount here would hide /data/one (/dev/sdb1, ext4), /data/two (nfs1:/srv/y, nfs4)"
    ]
    assert host.mounts == before


def test_a_mount_of_the_list_moves_into_a_new_mount_around_it() -> None:
    host = SimulatedHost()
    host.mount("nfs2:/srv/x", "/data/sub", "ro")
    wanted = [item("/data"), item("/data/sub", "nfs2:/srv/x")]
    assert apply(host, *wanted).failures == []
    assert host.shown("/data/sub") == ["nfs2:/srv/x"]
    assert len([mount for mount in host.mounts if mount.is_nfs]) == 2
    assert not apply(host, *wanted).changed


def test_the_same_server_under_another_name_is_noted_and_left_mounted() -> None:
    host = SimulatedHost("nfs1:/srv/a /data nfs defaults 0 0\n")
    host.mount("nfs1.example.com:/srv/a", "/data")
    outcome = apply(host, item("/data"))
    assert not outcome.changed
    assert "under another name" in outcome.results[0].notes[0]


def test_slashes_and_case_do_not_make_another_source() -> None:
    host = SimulatedHost()
    host.mount("nfs1:/srv/a", "/data")
    assert actions(apply(host, item("/data/", "NFS1:/srv//a/"))) == [["add its line in /etc/fstab"]]


def test_two_mounts_of_one_superblock_get_a_new_timeout_together() -> None:
    host = SimulatedHost()
    both = [item("/data", "nfs1:/srv/a"), item("/logs", "nfs1:/srv/b")]
    apply(host, *both)
    changed = [{**each, "options": "timeo=50"} for each in both]
    assert apply(host, *changed).failures == []
    assert all("timeo=50" in mount.super_options for mount in host.mounts if mount.is_nfs)
    assert not apply(host, *changed).changed


def test_a_timeout_that_a_staying_mount_decides_is_noted_and_nothing_is_unmounted() -> None:
    host = SimulatedHost("nfs1:/srv/a /data nfs timeo=50 0 0\n")
    host.mount("nfs1:/srv/b", "/logs")
    host.mount("nfs1:/srv/a", "/data", "timeo=50")
    outcome = apply(host, item("/data", options="timeo=50"))
    assert not outcome.changed
    assert outcome.failures == []
    assert (
        "timeo=600 instead of timeo=50: another mount of the same superblock decided it" in outcome.results[0].notes[0]
    )


def test_what_lies_over_such_a_mount_is_taken_away_all_the_same() -> None:
    host = SimulatedHost()
    host.mount("nfs2:/srv/b", "/logs")
    host.mount("nfs2:/srv/a", "/data")
    host.mount("nfs1:/srv/a", "/data")
    outcome = apply(host, item("/data", "nfs2:/srv/a", "timeo=50"))
    assert outcome.failures == []
    assert host.shown("/data") == ["nfs2:/srv/a"]


def test_soft_for_all_is_written_used_and_taken_back() -> None:
    host = SimulatedHost()
    apply(host, item("/data"))
    outcome = apply(host, item("/data"), defaults=[{"options": ["soft"]}])
    assert outcome.mount_defaults_changed
    assert "[ NFSMount_Global_Options ]\nSoft=True\n" in host.conf[_nfsmount_conf.DROP_IN]
    assert "soft" in host.mounts[-1].super_options
    assert not apply(host, item("/data"), defaults=[{"options": ["soft"]}]).changed
    apply(host, item("/data"), defaults=[])
    assert host.conf == {}
    assert "hard" in host.mounts[-1].super_options


def test_hard_that_nfsmount_conf_overrules_is_warned_about() -> None:
    host = SimulatedHost()
    outcome = apply(host, item("/data", options="hard"), defaults=[{"options": ["soft"]}])
    assert '/data: "hard" is asked for, but nfsmount.conf makes it "soft"' in outcome.warnings[0]
    assert not apply(host, item("/data", options="hard"), defaults=[{"options": ["soft"]}]).changed


def test_an_armed_automount_is_not_triggered() -> None:
    host = SimulatedHost("nfs1:/srv/a /data nfs x-systemd.automount 0 0\n")
    host.mount("systemd-1", "/data", fstype="autofs")
    outcome = apply(host, item("/data", options="x-systemd.automount"))
    assert not outcome.changed
    assert host.commands == []


def test_present_writes_fstab_and_unmounted_does_not() -> None:
    host = SimulatedHost()
    apply(host, item("/data", state="present"))
    assert host.shown("/data") == []
    assert host.fstab == "nfs1:/srv/a /data nfs defaults 0 0\n"
    apply(host, item("/data"))
    apply(host, item("/data", state="unmounted"))
    assert host.shown("/data") == []
    assert host.fstab == "nfs1:/srv/a /data nfs defaults 0 0\n"


def test_a_mount_that_is_not_for_the_boot_leaves_fstab() -> None:
    host = SimulatedHost()
    apply(host, item("/data"))
    assert actions(apply(host, item("/data", boot=False))) == [["remove its line from /etc/fstab"]]
    assert host.shown("/data") == ["nfs1:/srv/a"]


def test_files_that_a_mount_hides_are_noted() -> None:
    host = SimulatedHost()
    host.full.add("/data")
    assert "was not empty" in apply(host, item("/data")).results[0].notes[0]


def test_a_file_in_the_place_of_the_mount_point_is_called_that(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="is there, but is no directory"):
        Machine().make_directory(str(tmp_path / "file"), 0o755, os.getuid(), os.getgid())


def test_a_mount_point_gets_its_mode_and_its_parents_theirs(tmp_path: Path) -> None:
    Machine().make_directory(str(tmp_path / "a" / "b"), 0o2770, os.getuid(), os.getgid())
    assert (tmp_path / "a" / "b").stat().st_mode & 0o7777 == 0o2770
    assert (tmp_path / "a").stat().st_mode & 0o7777 == 0o755


def test_everything_wrong_with_the_input_is_reported_at_once() -> None:
    _items, problems = _mount_input.read_input(
        [
            item("data"),
            item("/"),
            item("/a/../b"),
            item("/c", "nfs1"),
            item("/d", "fe80::1:/x"),
            item("/e", options="sofft"),
            item("/f"),
            item("/f/"),
            item("/g", src=""),
            item("/h", "nfs1:srv"),
            item("/i", mode=493),
            item("/j", state="present", boot=False),
            item("/k", "nfs1:/a/../../etc"),
        ]
    )
    expected = [
        'mounts[0].path: "data" is not an absolute path',
        "mounts[1].path: the root directory cannot be a mount point of NFS",
        'mounts[2].path: "/a/../b" must not contain ".."',
        'mounts[3].src: "nfs1" has no colon; write server:/exported/path',
        'mounts[4].src: "fe80::1:/x" is not server:/exported/path; an IPv6 address needs brackets',
        'mounts[5].options: "sofft" is not an option of nfs(5) or mount(8); did you mean "soft"?',
        'mounts[7].path: "/f" is also the path of mounts[6]',
        "mounts[8].src: is needed (server:/exported/path), or server and export",
        'mounts[9].src: "nfs1:srv" is not server:/exported/path',
        'mounts[10].mode: 493 is no mode; write it octal and quoted, such as "0755"',
        'mounts[11].boot: false leaves nothing to do for state "present", which is a line in fstab only',
        'mounts[12].src: "nfs1:/a/../../etc" must not contain ".."',
    ]
    assert problems == expected


def test_a_stale_mount_is_made_anew_and_that_is_said() -> None:
    host = SimulatedHost("nfs1:/srv/a /data nfs defaults 0 0\n")
    host.stale.add(host.mount("nfs1:/srv/a", "/data").mount_id)
    outcome = apply(host, item("/data"))
    assert outcome.failures == []
    assert actions(outcome) == [["unmount nfs1:/srv/a", "mount nfs1:/srv/a"]]
    assert "nfs1:/srv/a was mounted with a stale file handle" in outcome.results[0].notes


def test_a_stale_mount_whose_export_is_gone_is_named_stale() -> None:
    # Not "Error making dir ... File exists".
    host = SimulatedHost("nfs1:/srv/a /data nfs defaults 0 0\n")
    host.stale.add(host.mount("nfs1:/srv/a", "/data").mount_id)
    host.missing.add("nfs1:/srv/a")
    (failure,) = apply(host, item("/data")).failures
    assert "access denied by server" in failure
    assert failure.endswith("nfs1:/srv/a stays mounted, with a stale file handle")


def test_a_stale_mount_that_is_busy_names_who_holds_it() -> None:
    host = SimulatedHost("nfs1:/srv/a /data nfs defaults 0 0\n")
    host.stale.add(host.mount("nfs1:/srv/a", "/data").mount_id)
    host.busy.add("/data")
    assert apply(host, item("/data")).failures == [
        "/data: nfs1:/srv/a is mounted (with a stale file handle) and cannot be unmounted, "
        "it is busy: held by process 42 (writer)"
    ]


def test_no_mount_of_a_silent_server_is_touched_even_by_a_child() -> None:
    host = SimulatedHost("dead:/srv/a /data nfs defaults 0 0\nnfs2:/srv/x /logs nfs defaults 0 0\n")
    host.mount("dead:/srv/a", "/data")
    host.mount("nfs2:/srv/x", "/logs")
    host.silent.add("dead")
    outcome = apply(host, item("/data", "dead:/srv/a"), item("/logs", "nfs2:/srv/x"))
    assert host.checked == ["/logs"]
    assert outcome.failures == []
    assert outcome.results[0].notes == ["its server 10.0.0.9 does not answer, so it was not touched"]
    assert outcome.warnings == ["10.0.0.9 does not answer; its mounts were not touched"]


def test_a_mount_of_a_silent_server_goes_all_the_same() -> None:
    host = SimulatedHost("dead:/srv/a /data nfs defaults 0 0\n")
    host.mount("dead:/srv/a", "/data")
    host.silent.add("dead")
    outcome = apply(host, item("/data", "dead:/srv/a", state="absent"))
    assert outcome.failures == []
    assert host.shown("/data") == []
    assert host.fstab == ""


def test_a_change_of_a_mount_whose_server_is_silent_does_not_wait() -> None:
    host = SimulatedHost("dead:/srv/a /data nfs defaults 0 0\n")
    host.mount("dead:/srv/a", "/data")
    host.silent.add("dead")
    (failure,) = apply(host, item("/data", "dead:/srv/a", "soft")).failures
    assert failure == ("/data: not tried: 10.0.0.9 gave no answer to the NULL call; dead:/srv/a stays mounted")
    assert host.shown("/data") == ["dead:/srv/a"]
    assert ran(host, "unshare") == []


@pytest.mark.parametrize(
    ("check", "note"),
    [
        (Check(), "gave no answer within 5 s, though its server answers"),
        (Check(begun=False), "was not tried: the check did not begin in time, as on a busy host"),
    ],
)
def test_a_mount_that_gives_no_answer_is_noted_and_left_alone(
    monkeypatch: pytest.MonkeyPatch, check: Check, note: str
) -> None:
    host = SimulatedHost("nfs1:/srv/a /data nfs defaults 0 0\n")
    host.mount("nfs1:/srv/a", "/data")
    monkeypatch.setattr(host, "check", lambda mounts, _seconds: {mounts[0].mount_id: check})
    outcome = apply(host, item("/data"))
    assert not outcome.changed
    assert outcome.results[0].notes == [note]


def test_server_and_export_are_as_good_as_a_source() -> None:
    host = SimulatedHost()
    assert apply(host, {"path": "/data", "server": "nfs1", "export": "/srv/a"}).failures == []
    assert host.shown("/data") == ["nfs1:/srv/a"]
    assert not apply(host, item("/data")).changed
    items, problems = _mount_input.read_input([{"path": "/x", "server": "2001:db8::1", "export": "/srv"}])
    assert problems == []
    assert items[0].source == "[2001:db8::1]:/srv"


AUTO = item("/data", automount=True)


def test_an_automount_is_armed_once_systemd_knows_the_new_fstab() -> None:
    host = SimulatedHost()
    wanted = item("/new", automount=True, automount_idle_timeout=600)
    outcome = apply(host, wanted)
    assert outcome.failures == []
    assert actions(outcome) == [["add its line in /etc/fstab", "make the mount point", "start the automount trigger"]]
    assert host.fstab == "nfs1:/srv/a /new nfs x-systemd.automount,x-systemd.idle-timeout=600 0 0\n"
    assert host.shown("/new") == ["systemd-1"]
    assert [command[1] for command in ran(host, "systemctl")] == ["daemon-reload", "start"]
    host.commands.clear()
    assert not apply(host, wanted).changed
    assert host.commands == []


def test_a_plain_mount_becomes_an_automount_and_back() -> None:
    host = SimulatedHost()
    apply(host, item("/data"))
    assert actions(apply(host, AUTO)) == [
        ["unmount nfs1:/srv/a", "change its line in /etc/fstab", "start the automount trigger"]
    ]
    assert host.shown("/data") == ["systemd-1"]
    assert not apply(host, AUTO).changed
    host.mount("nfs1:/srv/a", "/data")  # the first access
    assert not apply(host, AUTO).changed
    assert actions(apply(host, item("/data"))) == [
        ["unmount nfs1:/srv/a", "stop the automount trigger", "mount nfs1:/srv/a", "change its line in /etc/fstab"]
    ]
    assert host.shown("/data") == ["nfs1:/srv/a"]


def test_another_idle_timeout_or_other_options_start_the_trigger_anew() -> None:
    host = SimulatedHost()
    apply(host, AUTO)
    longer = {**AUTO, "automount_idle_timeout": 60}
    assert actions(apply(host, longer)) == [
        ["stop the automount trigger", "change its line in /etc/fstab", "start the automount trigger"]
    ]
    host.mount("nfs1:/srv/a", "/data")
    assert actions(apply(host, {**longer, "options": "soft"})) == [
        [
            *("unmount nfs1:/srv/a", "stop the automount trigger"),
            *("change its line in /etc/fstab", "start the automount trigger"),
        ]
    ]
    host.mount("nfs1:/srv/b", "/data")  # by hand, over the trigger
    assert apply(host, {**longer, "options": "soft"}).changed
    assert host.shown("/data") == ["systemd-1"]


def test_a_busy_mount_over_a_trigger_keeps_both() -> None:
    host = SimulatedHost()
    apply(host, AUTO)
    host.mount("nfs1:/srv/a", "/data")
    host.busy.add("/data")
    fstab = host.fstab
    assert "held by process 42" in apply(host, item("/data", state="absent")).failures[0]
    assert host.shown("/data") == ["systemd-1", "nfs1:/srv/a"]
    assert host.fstab == fstab


@pytest.mark.parametrize("state", ["absent", "unmounted"])
def test_what_is_not_wanted_any_more_loses_its_trigger(state: str) -> None:
    host = SimulatedHost()
    apply(host, AUTO)
    host.mount("nfs1:/srv/a", "/data")
    outcome = apply(host, item("/data", state=state))
    assert outcome.failures == []
    assert host.shown("/data") == []
    assert bool(host.fstab) == (state == "unmounted")


def test_a_trigger_of_somebody_else_is_left_alone() -> None:
    host = SimulatedHost()
    host.mount("/etc/auto.data", "/data", fstype="autofs")
    for wanted in (item("/data"), AUTO):
        assert "an automounter mounts there" in apply(host, wanted).failures[0]
    assert not apply(host, item("/data", state="absent")).changed
    assert host.shown("/data") == ["/etc/auto.data"]


def test_a_trigger_is_not_started_when_systemd_was_not_told() -> None:
    host = SimulatedHost()
    host.mount("dead:/srv/a", "/logs")
    host.silent.add("dead")
    outcome = apply(host, AUTO)
    assert outcome.failures == ["/data: its automount trigger is not started: systemd does not know the new fstab"]
    assert "systemd was not told" in outcome.warnings[0]


def test_a_trigger_that_systemd_refuses_fails_its_item(monkeypatch: pytest.MonkeyPatch) -> None:
    host = SimulatedHost()
    apply(host, AUTO)

    def refuse(argv: Sequence[str]) -> Finished:
        return host._finished(argv, 1, stderr=f"Failed to {argv[1]}")

    monkeypatch.setattr(host, "_systemctl", refuse)
    (failure,) = apply(host, item("/data")).failures
    assert "trigger cannot be stopped: systemctl stop -- data.automount: exit status 1: Failed to stop" in failure
    monkeypatch.undo()
    apply(host, item("/data", state="absent"))
    monkeypatch.setattr(
        host, "_systemctl", lambda argv: host._finished(argv, 0) if argv[1] == "daemon-reload" else refuse(argv)
    )
    (failure,) = apply(host, AUTO).failures
    assert "trigger cannot be started: systemctl start -- data.automount: exit status 1: Failed to start" in failure


@pytest.mark.parametrize("how", ["lazy", "abort"])
def test_a_busy_mount_goes_when_somebody_says_so_in_words(how: str) -> None:
    host = SimulatedHost("nfs1:/srv/a /data nfs defaults 0 0\n")
    host.mount("nfs1:/srv/a", "/data")
    host.busy.add("/data")
    outcome = apply(host, item("/data", state="absent", unmount=how))
    assert outcome.failures == []
    expected = {"lazy": ["umount", "-i", "-l", "/data"], "abort": ["umount", "-i", "-f", "-l", "/data"]}
    assert ran(host, "umount") == [expected[how]]
    word = {"lazy": "lazily unmount nfs1:/srv/a", "abort": "abort and unmount nfs1:/srv/a"}
    assert actions(outcome)[0][0] == word[how]


def test_requests_of_others_on_the_same_superblock_are_not_aborted() -> None:
    host = SimulatedHost()
    host.mount("nfs1:/srv/a", "/data")
    host.mount("nfs1:/srv/b", "/logs")
    gone = {"path": "/data", "state": "unmounted", "unmount": "abort"}
    (failure,) = apply(host, gone).failures
    assert failure.startswith("/data: not aborted: /logs share its superblock")
    assert "allow_abort_shared_io: true" in failure
    assert host.commands == []
    # Both are to be aborted: nobody else is hit.
    assert apply(host, gone, {**gone, "path": "/logs"}).failures == []
    host.mount("nfs1:/srv/a", "/data")
    host.mount("nfs1:/srv/b", "/logs")
    assert apply(host, gone, allow_abort_shared_io=True).failures == []
    assert host.shown("/logs") == ["nfs1:/srv/b"]


def test_only_the_mount_that_was_looked_at_is_unmounted() -> None:
    host = SimulatedHost()
    seen = host.mount("nfs1:/srv/a", "/data")
    gone = {"path": "/data", "state": "unmounted", "mount_id": seen.mount_id, "major_minor": seen.device}
    host.mounts.remove(seen)
    other = host.mount("nfs1:/srv/b", "/data")
    outcome = apply(host, gone)
    assert not outcome.changed
    assert outcome.failures == []
    assert outcome.results[0].notes == ["the mount that shall go is there no longer"]
    assert "it is another mount" in apply(host, {**gone, "mount_id": None, "major_minor": "9:9"}).failures[0]
    below = {**gone, "mount_id": other.mount_id, "major_minor": other.device}
    host.mount("nfs2:/srv/c", "/data")
    assert "is covered by nfs2:/srv/c" in apply(host, below).failures[0]
    assert host.shown("/data") == ["nfs1:/srv/b", "nfs2:/srv/c"]
    host.mounts.pop()
    assert actions(apply(host, below)) == [["unmount nfs1:/srv/b"]]


def test_an_empty_mount_point_is_removed_and_one_with_data_never() -> None:
    host = SimulatedHost()
    apply(host, item("/data"), item("/logs", "nfs2:/srv/x"))
    host.full.add("/logs")
    both = [item(path, state="absent", remove_mount_point=True) for path in ("/data", "/logs")]
    predicted = apply(host, *both, check_mode=True)
    outcome = apply(host, *both)
    assert outcome.failures == []
    assert actions(outcome)[0][-1] == "remove the mount point"
    assert actions(predicted)[0] == [*actions(outcome)[0][:1], "remove the mount point", actions(outcome)[0][1]]
    assert "the mount point stays: Directory not empty" in outcome.results[1].notes
    assert "/data" not in host.directories
    assert "/logs" in host.directories
    again = apply(host, *both, check_mode=True)
    assert not again.changed
    assert not apply(host, *both).changed


def test_a_mount_point_on_a_server_is_left_there() -> None:
    host = SimulatedHost()
    wanted = [item("/data"), item("/data/deep", "nfs2:/srv/x")]
    apply(host, *wanted)
    outcome = apply(host, wanted[0], {**wanted[1], "state": "absent", "remove_mount_point": True})
    assert "remove the mount point" not in actions(outcome)[1]
    assert "it lies on a server" in outcome.results[1].notes[-1]


def test_an_old_nfs_utils_gets_its_defaults_in_the_main_file() -> None:
    host = SimulatedHost()
    host.version = (2, 3, 3)
    host.conf[_nfsmount_conf.CONF] = "# mine\n"
    apply(host, item("/data"), defaults=[{"options": ["softerr"], "server": "nfs1"}])
    assert host.conf[_nfsmount_conf.CONF].endswith("# mine\n")
    assert _nfsmount_conf.DROP_IN not in host.conf
    assert "softerr" in host.mounts[-1].super_options
    assert not apply(host, item("/data"), defaults=[{"options": ["softerr"], "server": "nfs1"}]).changed
    apply(host, defaults=[])
    assert host.conf == {_nfsmount_conf.CONF: "# mine\n"}


def test_everything_wrong_with_the_newer_keys_is_reported_at_once() -> None:
    _items, problems = _mount_input.read_input(
        [
            {"path": "/a", "src": "nfs1:/a", "server": "nfs1", "export": "/a"},
            {"path": "/b", "server": "nfs1"},
            {"path": "/c", "export": "/c"},
            {"path": "/d", "server": "nfs1", "export": "d"},
            {"path": "/e", "server": "[::1]", "export": "/e"},
            item("/f", automount=True, boot=False),
            item("/g", automount_idle_timeout=60),
            item("/h", automount=True, automount_idle_timeout=-1),
            item("/i", options="x-systemd.idle-timeout=5", automount=True, automount_idle_timeout="60"),
            item("/j", remove_mount_point=True),
            item("/k", mount_id=7),
            item("/l", state="absent", major_minor="52"),
        ]
    )
    assert problems == [
        "mounts[0].src, server, export: give either src, or server and export",
        "mounts[1].export: is needed with server",
        "mounts[2].server: is needed with export",
        'mounts[3].export: "d" is not an absolute path',
        'mounts[4].server: "[::1]" is not a host name or address; brackets are not needed here',
        "mounts[5].automount: needs boot: true, since systemd makes the trigger from fstab",
        "mounts[6].automount_idle_timeout: is for automount: true only",
        "mounts[7].automount_idle_timeout: -1 is less than 0 seconds",
        "mounts[8].automount_idle_timeout: options already say x-systemd.idle-timeout",
        'mounts[9].remove_mount_point: only state "absent" removes it, not "mounted"',
        'mounts[10].mount_id, major_minor: say what may be unmounted, so not for state "mounted"',
        'mounts[11].major_minor: "52" is not two numbers, such as "0:52"',
    ]


def test_automount_wants_systemd(monkeypatch: pytest.MonkeyPatch) -> None:
    host = SimulatedHost()
    items, _problems = _mount_input.read_input([AUTO])
    assert problems_of_host(host, items) == []
    monkeypatch.setattr(host, "has_systemd", lambda: False)
    assert problems_of_host(host, items) == ["mounts[0].automount: systemd does not run here"]


SOURCES = ["nfs1:/srv/a", "nfs1:/srv/b", "nfs2:/srv/a", "nfs1.example.com:/srv/a"]
OPTIONS = ["", "soft", "hard,timeo=50", "ro", "softerr,nosuid", "vers=4.1", "rsize=8192", "noresvport,nconnect=2"]
PATHS = ["/data", "/logs", "/data/sub", "/new"]
MOUNTED = st.tuples(st.sampled_from(SOURCES), st.sampled_from(PATHS), st.sampled_from(OPTIONS))
FOREIGN = st.sampled_from(["/logs", "/data/sub"])
WANTED = st.builds(
    lambda path, src, options, state, boot, automount, unmount: item(
        *(path, src, options),
        state=state,
        boot=boot or automount or state == "present",
        automount=automount,
        unmount=unmount,
        remove_mount_point=state == "absent" and boot,
    ),
    st.sampled_from(PATHS),
    st.sampled_from(SOURCES),
    st.sampled_from(OPTIONS),
    st.sampled_from(_mount_input.STATES),
    st.booleans(),
    st.sampled_from([False, False, True]),
    st.sampled_from(["normal", "normal", "abort"]),
)
HOST = st.tuples(
    st.lists(MOUNTED, max_size=4),
    st.lists(FOREIGN, max_size=1),
    st.sets(st.sampled_from(PATHS), max_size=1),
    st.sets(st.sampled_from(SOURCES), max_size=1),
    st.sampled_from(["", "nfs1:/srv/a /data nfs soft 0 0\n# x\n", "/dev/sdb1 /logs ext4 defaults 0 2\n"]),
)


def build(made: Any) -> SimulatedHost:
    mounted, foreign, busy, missing, fstab = made
    host = SimulatedHost(fstab)
    for source, path, options in mounted:
        host.mount(source, path, options)
    for path in foreign:
        host.mount("tmpfs", path, fstype="tmpfs")
    host.busy, host.missing = set(busy), set(missing)
    return host


@examples(400)
@given(HOST, st.lists(WANTED, min_size=1, max_size=4, unique_by=lambda each: each["path"]))
def test_whatever_the_host_looks_like(made: Any, wanted: list[dict[str, Any]]) -> None:
    host, for_check = build(made), build(made)
    foreign_before = [mount for mount in host.mounts if not mount.is_nfs and mount.fstype != "autofs"]
    other_paths = {mount.path for mount in host.mounts} - {each["path"] for each in wanted}
    others_before = [mount for mount in host.mounts if mount.path in other_paths]

    # Check mode changes nothing at all.
    before = (list(for_check.mounts), for_check.fstab, set(for_check.directories))
    predicted = apply(for_check, *wanted, check_mode=True)
    assert (for_check.mounts, for_check.fstab, for_check.directories) == before

    outcome = apply(host, *wanted)
    # What is not NFS, and what the input does not name, is left alone.
    assert [mount for mount in host.mounts if not mount.is_nfs and mount.fstype != "autofs"] == foreign_before
    assert [mount for mount in host.mounts if mount.path in other_paths] == others_before
    for result in outcome.results:
        each = result.planned.wanted
        if result.failure is not None:
            continue
        top = MountTable(host.mounts).find(each.path).top
        entries = [entry for entry in _fstab.entries_at(_fstab.parse(host.fstab), each.path) if entry.is_nfs]
        if each.state == "mounted":
            assert top is not None
            if each.automount and top.fstype == "autofs":
                continue
            assert export_path(top.source) == export_path(each.source)
            assert ("systemd-1" in host.shown(each.path)) == each.automount
        elif each.state in ("unmounted", "absent"):
            assert top is None or not top.is_nfs
        if each.in_fstab is not None:
            assert entries == ([each.entry] if each.in_fstab else [])
    if not outcome.failures:
        # What check mode said is what happened, and a second run finds nothing to do.
        assert predicted.changed == outcome.changed
        assert not apply(host, *wanted).changed


def export_path(source: str) -> tuple[str, str]:
    parts = split_source(source)
    assert parts is not None
    return ADDRESSES[parts[0]], parts[1]
