# SPDX-License-Identifier: GPL-3.0-or-later
"""Exports and file systems: what systemd and mountd will make of their names."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping
from typing import Any

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import (
    _export_list,
    _export_mounts,
    _export_options,
    _exports,
    _mounts,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._export_list import Export
from ansible_collections.clusterkit.storage.plugins.module_utils._export_mounts import Mounts
from ansible_collections.clusterkit.storage.plugins.module_utils._export_options import NEWEST
from ansible_collections.clusterkit.storage.plugins.module_utils._exports import Entry
from ansible_collections.clusterkit.storage.plugins.module_utils._mounts import is_within
from hypothesis import example, given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("point", "unit"),
    [
        ("/", "-.mount"),
        ("/nfs", "nfs.mount"),
        ("/srv/data", "srv-data.mount"),
        ("/srv/my data", r"srv-my\x20data.mount"),
        ("/srv/a-b", r"srv-a\x2db.mount"),
        ("/.hidden/x.y", r"\x2ehidden-x.y.mount"),
        ("/ü", r"\xc3\xbc.mount"),
    ],
)
def test_names_of_mount_units(point: str, unit: str) -> None:
    assert _export_mounts.unit_name(point) == unit


parts = st.text(st.characters(blacklist_characters="/\0\n", blacklist_categories=("Cs", "Cc")), min_size=1, max_size=8)


@given(st.lists(parts.filter(lambda part: part not in (".", "..")), min_size=1, max_size=3))
@example(["a", ".b"])
def test_names_are_those_of_systemd(path: list[str]) -> None:
    """One name for one path: two mount points must not wait for the same unit."""
    name = _export_mounts.unit_name("/" + "/".join(path))
    raw = re.sub(
        rb"\\x([0-9a-f]{2})|-",
        lambda found: bytes([int(found.group(1), 16)]) if found.group(1) else b"/",
        name.removesuffix(".mount").encode(),
    )
    assert raw.decode() == "/".join(path)
    assert re.fullmatch(r"[A-Za-z0-9:_.\\-]+\.mount", name)


def test_systemd_itself_agrees() -> None:
    program = shutil.which("systemd-escape")
    if program is None:
        pytest.skip("systemd-escape is not installed")
    for path in ("/nfs", "/srv/my data", "/.hidden/x.y", "/srv/a-b/ü", "/a/.b"):
        said = subprocess.run(
            [program, "--path", "--suffix=mount", path], capture_output=True, text=True, check=True
        ).stdout.strip()
        assert _export_mounts.unit_name(path) == said


def test_a_missing_disk_must_not_stop_the_others() -> None:
    content = _export_mounts.drop_in(["/nfs", "/srv/my data"])
    assert content is not None
    assert r"Wants=nfs.mount srv-my\x20data.mount" in content
    assert not re.search("^(Requires|BindsTo|RequiresMountsFor)", content, re.MULTILINE)
    assert _export_mounts.drop_in([]) is None


@pytest.mark.parametrize(
    ("fstype", "options", "quotas"),
    [
        ("xfs", "rw,attr2,inode64,noquota", []),
        ("xfs", "rw,attr2,inode64,usrquota,prjquota", ["user", "project"]),
        ("ext4", "rw,quota,usrquota,grpquota,prjquota", ["user", "group", "project"]),
        ("ext4", "rw", []),
    ],
)
def test_quotas_of_a_mounted_file_system(fstype: str, options: str, quotas: list[str]) -> None:
    [mount] = _mounts.parse(f"30 1 253:16 / /nfs rw - {fstype} /dev/vdb {options}\n")
    assert _export_mounts.quotas(mount) == quotas


# What is wrong with exports on these file systems ---------------------------------------------------------


def mounted(points: Mapping[str, str], at_boot: list[str] | None = None) -> Mounts:
    """Disks at these points, with their types; all have a device of their own."""
    lines = ["1 0 8:1 / / rw - ext4 /dev/vda rw"]
    for number, point in enumerate(sorted(points), 2):
        parent = max(
            (n for n, other in enumerate(sorted(points), 2) if other != point and is_within(point, other)), default=1
        )
        lines.append(f"{number} {parent} 8:{number} / {point} rw - {points[point]} /dev/vd{number} rw")
    table = _mounts.MountTable(_mounts.parse("\n".join(lines) + "\n"))
    return Mounts(table, at_boot or [], frozenset(points))


def exports_of(*paths: str, options: tuple[str, ...] = ("rw",)) -> list[Export]:
    given = [{"path": path, "clients": [{"host": "10.0.0.0/8", "options": list(options)}]} for path in paths]
    exports, problems = _export_list.read_list(given, allow_world=False, dialect=NEWEST)
    assert problems == []
    return exports


def problems_of(exports: list[Export], mounts: Mounts, **more: Any) -> list[str]:
    given = {"others": [], "past": [], "real": {}, **more}
    return _export_mounts.problems(exports, mounts=mounts, **given)


def entry(text: str) -> Entry:
    return _exports.parse(text).entries[0]


def test_a_disk_that_is_not_mounted_is_named_where_it_should_be() -> None:
    fstab = "/dev/vdb /data xfs defaults 0 2\n/dev/vdc /data/b xfs noauto 0 2\n# x\nUUID=1 none swap sw 0 0\n"
    mounts = mounted({}, _export_mounts.at_boot(fstab))
    assert mounts.at_boot == ["/data"]
    (problem,) = problems_of(exports_of("/data/a", "/other"), mounts)
    assert "exports[0].path: /data/a lies on /data, which /etc/fstab has and which is not mounted" in problem
    assert problems_of(exports_of("/data/a", "/other"), mounted({"/data": "xfs"}, mounts.at_boot)) == []
    # By its real path, not by its name.
    assert problems_of(exports_of("/link"), mounts, real={"/link": "/data/a"}) != []
    assert problems_of(exports_of("/data/a"), mounts, real={"/data/a": "/elsewhere"}) == []


def test_a_disk_that_was_below_an_export_and_is_gone_is_missed() -> None:
    past = [entry("/data 10.0.0.0/8(rw,mountpoint=/data)")]
    (problem,) = problems_of(exports_of("/data"), mounted({}), past=past)
    assert "/data was exported from the file system at /data, and nothing is mounted there now" in problem
    assert problems_of(exports_of("/data"), mounted({"/data": "xfs"}), past=past) == []
    wanted = exports_of("/data", options=("rw", "mountpoint=/data"))
    assert problems_of(wanted, mounted({}), past=past) == [], "mountd does not serve it"


@pytest.mark.parametrize("fstype", ["overlay", "tmpfs", "nfs4", "fuse", "fuse.sshfs", "ceph"])
def test_a_file_system_without_a_number_needs_one(fstype: str) -> None:
    mounts = mounted({"/data": fstype})
    (problem,) = problems_of(exports_of("/data"), mounts)
    assert f"exports[0].clients[0].options: /data lies on {fstype}, which cannot be exported without fsid=" in problem
    for option in ("fsid=1", "fsid=0", "fsid=12345678-1234-1234-1234-123456789abc", "reexport=auto-fsidnum"):
        assert problems_of(exports_of("/data", options=("rw", option)), mounts) == []
    assert problems_of(exports_of("/data"), mounted({"/data": "xfs"})) == []


paths = st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map(lambda parts: "/" + "/".join(parts))


@given(
    points=st.sets(paths, max_size=6), own=st.sets(paths, min_size=1, max_size=4), foreign=st.sets(paths, max_size=2),
    crossing=st.booleans(),
)  # fmt: skip
def test_clients_see_everything_below_an_export_or_it_is_said(
    points: set[str], own: set[str], foreign: set[str], crossing: bool
) -> None:
    mounts = mounted(dict.fromkeys(points, "xfs"))
    exports = exports_of(*sorted(own), options=("rw", "crossmnt") if crossing else ("rw",))
    others = [entry(f"{path} 10.0.0.0/8(rw)") for path in sorted(foreign)]
    found = problems_of(exports, mounts, others=others)
    said = {tuple(re.findall(r": (\S+) is a mount point below (\S+):", problem)[0]) for problem in found}
    hidden = {
        (point, path)
        for path in own
        for point in points
        if point != path
        and is_within(point, path)
        and max((other for other in own | foreign if is_within(point, other)), key=len) == path
    }
    if crossing:
        assert found == []
        return
    assert said <= hidden
    for point, path in hidden - said:
        assert any(is_within(point, other) and other != point for other, of in said if of == path), (
            "below one that is said"
        )
    assert len(found) == len(said)


def test_what_the_system_mounts_is_not_meant_for_clients() -> None:
    mounts = mounted({"/proc": "proc", "/run/user/0": "tmpfs", "/sys": "sysfs", "/dev": "devtmpfs", "/running": "xfs"})
    (problem,) = problems_of(exports_of("/"), mounts)
    assert "/running is a mount point below /" in problem


# Guards ----------------------------------------------------------------------------------------------------


@given(points=st.sets(paths, max_size=6), own=st.sets(paths, min_size=1, max_size=4), shared=st.sets(paths, max_size=3))
def test_an_export_is_guarded_by_the_file_system_that_it_lies_on(
    points: set[str], own: set[str], shared: set[str]
) -> None:
    """And by none that is on the device of its parent, since mountd would not take that one for mounted."""
    mounts = mounted(dict.fromkeys(points, "xfs"))
    mounts = Mounts(mounts.table, (), frozenset(points - shared))
    exports = exports_of(*sorted(own))
    done = _export_mounts.guarded(exports, {}, mounts, NEWEST)
    for before, after in zip(exports, done, strict=True):
        lies_on = max((point for point in points if is_within(before.path, point)), key=len, default=None)
        (client,) = after.clients
        expected = lies_on if lies_on not in shared else None
        assert client.meaning.mountpoint == expected
        assert client.options == (*before.clients[0].options, *([f"mountpoint={expected}"] if expected else []))
        assert _export_options.read_options(",".join(client.options))[0] == client.meaning
    assert _export_mounts.guarded(done, {}, mounts, NEWEST) == done


def test_what_exports_cannot_say_and_what_the_user_says_is_left() -> None:
    own = exports_of("/a", options=("rw", "mountpoint=/x"))
    assert _export_mounts.guarded(own, {}, mounted({"/a": "xfs"}), NEWEST) == own
    blank = exports_of("/with")
    assert _export_mounts.guarded(blank, {"/with": "/with,comma"}, mounted({"/with,comma": "xfs"}), NEWEST) == blank


def test_the_server_waits_for_the_disks_below_exports() -> None:
    mounts = mounted({"/data": "xfs", "/data/b": "xfs", "/unused": "xfs"})
    assert _export_mounts.mount_points(["/data/a", "/data/b/c", "/etc", "/data"], mounts) == ["/data", "/data/b"]
