# SPDX-License-Identifier: GPL-3.0-or-later
"""Exports and file systems: what systemd and mountd will make of their names."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import _export_mounts, _mounts
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
