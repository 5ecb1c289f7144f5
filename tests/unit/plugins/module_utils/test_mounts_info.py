# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import errno
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import _mounts, _mounts_info
from ansible_collections.clusterkit.storage.plugins.module_utils._mount_checks import Check, MountChecks
from ansible_collections.clusterkit.storage.plugins.module_utils._mounts import Mount, MountTable
from ansible_collections.clusterkit.storage.plugins.module_utils._nfs_server import Answer
from hypothesis import given
from hypothesis import strategies as st

UID = "0b0e6b0c-8a3f-4a1d-9d07-1f2a3b4c5d6e"
NFS = "rw,vers=4.2,rsize=131072,wsize=131072,hard,proto=tcp,timeo=600,retrans=2,sec=sys"
PODS = f"/var/lib/kubelet/pods/{UID}"
SEEN = f"""\
29 1 254:1 / / rw,relatime shared:1 - ext4 /dev/root rw
41 29 0:36 / /proc/sys/fs/binfmt_misc rw - autofs systemd-1 rw,fd=37,pgrp=1,timeout=0,minproto=5,maxproto=5,direct
50 29 0:40 / /auto rw - autofs systemd-1 rw,fd=54,pgrp=1,timeout=600,minproto=5,maxproto=5,direct,pipe_ino=9
62 29 0:53 / /m/1 rw,relatime shared:177 - nfs4 nfs1:/srv/a {NFS},addr=10.0.0.1
67 29 0:53 / {PODS}/volumes/kubernetes.io~nfs/pv-1 rw - nfs4 nfs1:/srv/a/pv-1 {NFS},addr=10.0.0.1
68 29 0:53 /x {PODS}/volume-subpaths/pv-1/main/0 rw - nfs4 nfs1:/srv/a/pv-1 {NFS},addr=10.0.0.1
69 29 0:55 / {PODS}/volumes/kubernetes.io~csi/pv-2/mount rw - nfs4 nfs2:/srv/b {NFS},addr=10.0.0.2
70 50 0:56 / /auto rw - nfs4 [fe80::1]:/srv/c {NFS},addr=fe80::1
71 29 0:57 / /old rw - nfs nfs3:/srv/old rw,vers=3,hard,addr=10.0.0.3
72 71 0:58 / /old rw - tmpfs tmpfs rw
73 29 0:59 / /far rw - nfs4 far:/srv {NFS}
"""
YES, NO = Answer(True, 0.01, ""), Answer(False, None, "no connection within 5 s")
FINE = Check(0, 0.002)


def table(text: str = SEEN) -> MountTable:
    return MountTable(_mounts.parse(text))


def describe(checks: dict[int, Check], answers: dict[tuple[str, int], Answer] | None = None) -> dict[str, Any]:
    found = dict.fromkeys((62, 67, 68, 69, 70, 73), FINE) | checks
    asked = {("10.0.0.1", 2049): YES, ("10.0.0.2", 2049): YES, ("10.0.0.3", 2049): YES, ("fe80::1", 2049): YES}
    return _mounts_info.describe(table(), table(), found, {**asked, **(answers or {})}, "/var/lib/kubelet", 5)


def at(result: dict[str, Any], path: str) -> dict[str, Any]:
    (found,) = [mount for mount in result["mounts"] if mount["path"] == path]
    return dict(found)


def test_a_mount_is_described_as_the_kernel_shows_it() -> None:
    assert at(describe({}), "/m/1") == {
        "path": "/m/1",
        "source": "nfs1:/srv/a",
        "server": "nfs1",
        "export": "/srv/a",
        "address": "10.0.0.1",
        "version": "4.2",
        "fstype": "nfs4",
        "mount_id": 62,
        "parent_id": 29,
        "major_minor": "0:53",
        "options": ["rw", "relatime"],
        "super_options": [*NFS.split(","), "addr=10.0.0.1"],
        "shares_superblock_with": [
            f"{PODS}/volume-subpaths/pv-1/main/0",
            f"{PODS}/volumes/kubernetes.io~nfs/pv-1",
        ],
        "stacked": False,
        "pod": None,
        "health": "ok",
        "latency": 0.002,
        "detail": "",
    }
    assert at(describe({}), "/auto")["server"] == "fe80::1"


@pytest.mark.parametrize(
    ("path", "volume", "kind"),
    [
        (f"{PODS}/volumes/kubernetes.io~nfs/pv-1", "pv-1", "nfs"),
        (f"{PODS}/volume-subpaths/pv-1/main/0", "pv-1", "subpath"),
        (f"{PODS}/volumes/kubernetes.io~csi/pv-2/mount", "pv-2", "csi"),
    ],
)
def test_mounts_of_pods_are_named_with_uid_and_volume(path: str, volume: str, kind: str) -> None:
    assert at(describe({}), path)["pod"] == {"uid": UID, "volume": volume, "kind": kind}


@pytest.mark.parametrize(
    "path",
    [
        "/var/lib/kubelet",
        "/var/lib/kubelet/plugins/kubernetes.io/csi/nfs.csi.k8s.io/abc/globalmount",
        f"{PODS}/volumes/kubernetes.io~nfs/pv-1/deeper",
        f"{PODS}/volumes/kubernetes.io~csi/pv-2",
        f"/elsewhere{PODS}/volumes/kubernetes.io~nfs/pv-1",
    ],
)
def test_other_places_below_kubelet_are_no_pod_s(path: str) -> None:
    assert _mounts_info.pod_of(path, "/var/lib/kubelet") is None


def test_kubelet_may_have_another_root() -> None:
    path = f"/srv/kubelet/pods/{UID}/volumes/kubernetes.io~nfs/v"
    assert _mounts_info.pod_of(path, "/srv/kubelet") == {"uid": UID, "volume": "v", "kind": "nfs"}
    assert _mounts_info.pod_of(path, "/var/lib/kubelet") is None


@pytest.mark.parametrize(
    ("check", "answer", "health", "words"),
    [
        (FINE, YES, "ok", ""),
        (FINE, NO, "ok", ""),
        (Check(errno.ESTALE, 0.1), YES, "stale", "Stale file handle"),
        (Check(errno.EACCES, 0.1), YES, "ok", "Permission denied"),
        (Check(), YES, "hung", "no answer within 5 s, though its server answers"),
        (Check(), NO, "unreachable", "its server does not answer either: no connection within 5 s"),
        (Check(), None, "hung", "no answer within 5 s"),
        (Check(earlier=True), YES, "hung", "an earlier check of this mount has not come back, so none was started"),
        (Check(earlier=True), NO, "unreachable", "an earlier check"),
        # A soft mount that has given up.
        (Check(errno.ETIMEDOUT, 4), NO, "unreachable", "timed out"),
        (Check(errno.EIO, 4), YES, "hung", "Input/output error, though its server answers"),
        (None, YES, "ok", ""),
        (None, NO, "unreachable", "no connection within 5 s"),
        (Check(begun=False), YES, "ok", "did not begin in time, as on a busy host; its server answers"),
        (Check(begun=False), NO, "unreachable", "busy host; its server does not answer either"),
        (Check(begun=False), None, "ok", "the check did not begin in time"),
    ],
)
def test_the_mount_s_answer_is_told_apart_from_the_server_s(
    check: Check | None, answer: Answer | None, health: str, words: str
) -> None:
    found, detail = _mounts_info.health_of(check, answer, 5)
    assert found == health
    assert words in detail
    assert bool(words) == bool(detail)


def test_a_covered_mount_is_named_with_its_cover_and_judged_by_its_server() -> None:
    covered = at(describe({}), "/old")
    assert (covered["stacked"], covered["health"], covered["latency"]) == (True, "ok", None)
    assert covered["detail"] == "covered by tmpfs (tmpfs) at /old, so only its server was asked"
    dead = at(describe({}, {("10.0.0.3", 2049): NO}), "/old")
    assert dead["health"] == "unreachable"
    assert dead["detail"].endswith("asked: no connection within 5 s")


def test_a_mount_below_a_later_one_is_covered_too() -> None:
    hidden = table(SEEN + "80 29 0:60 / /m rw - tmpfs other rw\n")
    result = _mounts_info.describe(hidden, hidden, {}, {}, "/var/lib/kubelet", 5)
    assert at(result, "/m/1")["stacked"]
    assert "covered by other (tmpfs) at /m," in at(result, "/m/1")["detail"]


def test_what_is_mounted_no_longer_is_left_out() -> None:
    now = MountTable([mount for mount in table().mounts if mount.mount_id != 69])
    result = _mounts_info.describe(table(), now, {}, {}, "/var/lib/kubelet", 5)
    assert [mount["mount_id"] for mount in result["mounts"]] == [62, 67, 68, 70, 71, 73]


def test_servers_and_triggers_are_listed() -> None:
    result = describe({}, {("10.0.0.2", 2049): NO})
    assert [(server["address"], server["answers"]) for server in result["servers"]] == [
        *(("10.0.0.1", True), ("10.0.0.2", False), ("10.0.0.3", True), ("fe80::1", True))
    ]
    assert result["servers"][1] == {
        "address": "10.0.0.2",
        "port": 2049,
        "answers": False,
        "latency": None,
        "detail": "no connection within 5 s",
    }
    assert result["automounts"] == [
        {
            "path": "/auto",
            "source": "systemd-1",
            "mount_id": 50,
            "parent_id": 29,
            "kind": "direct",
            "idle_timeout": 600,
            "mounted": ["[fe80::1]:/srv/c"],
        }
    ]


def test_only_mounts_that_a_path_leads_to_are_tried_and_each_server_is_asked_once(tmp_path: Path) -> None:
    tried: list[int] = []
    asked: list[tuple[str, int]] = []

    class Noted(MountChecks):
        def start(self, mounts: Any, deadline: float) -> None:
            assert deadline - time.monotonic() <= 1.5, "the other half is for the servers"
            tried.extend(mount.mount_id for mount in mounts)

        def wait(self, deadline: float) -> dict[int, Check]:
            assert deadline > time.monotonic()
            return dict.fromkeys(tried, FINE)

    def ask(address: str, port: int, *, timeout: float) -> Answer:
        assert 0 < timeout <= 3
        asked.append((address, port))
        return YES

    checks = Noted(str(tmp_path / "lock"))
    result = _mounts_info.look(3, "/var/lib/kubelet", read_table=table, checks=checks, ask=ask)
    assert tried == [62, 67, 68, 69, 70, 73], "71 is covered"
    assert sorted(asked) == [("10.0.0.1", 2049), ("10.0.0.2", 2049), ("10.0.0.3", 2049), ("fe80::1", 2049)]
    assert {mount["health"] for mount in result["mounts"]} == {"ok"}


def test_this_machine_can_be_looked_at(tmp_path: Path) -> None:
    result = _mounts_info.look(10, "/var/lib/kubelet", checks=MountChecks(str(tmp_path / "lock")))
    assert set(result) == {"mounts", "servers", "automounts"}


NAME = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=30).filter(
    lambda name: name not in (".", "..")
)


@given(NAME, NAME, NAME, st.integers(0, 9))
def test_whatever_pods_and_volumes_are_called(uid: str, volume: str, container: str, number: int) -> None:
    root = "/var/lib/kubelet"
    for kind, path in (
        ("nfs", f"{root}/pods/{uid}/volumes/kubernetes.io~nfs/{volume}"),
        ("csi", f"{root}/pods/{uid}/volumes/kubernetes.io~csi/{volume}/mount"),
        ("subpath", f"{root}/pods/{uid}/volume-subpaths/{volume}/{container}/{number}"),
    ):
        mount = Mount(2, 1, "0:2", "/", path, (), (), "nfs4", "nfs1:/a", ())
        assert _mounts_info.pod_of(mount.path, root) == {"uid": uid, "volume": volume, "kind": kind}
