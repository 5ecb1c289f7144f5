# SPDX-License-Identifier: GPL-3.0-or-later
"""Of which logical volumes snapshots can be made, and by which commands.

The report has the form of LVM 2.03.16's; a kernel without device-mapper has no numbers for it, nor thin volumes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.clusterkit.storage.plugins.module_utils import _process, _snapshot_lvm
from ansible_collections.clusterkit.storage.plugins.module_utils._backup import BackupError
from ansible_collections.clusterkit.storage.plugins.module_utils._backup_settings import Settings
from ansible_collections.clusterkit.storage.plugins.module_utils._mounts import Mount, parse
from ansible_collections.clusterkit.storage.plugins.module_utils._snapshot_lvm import Lvm, Volumes

REPORT = """  {
      "report": [
          {
              "lv": [
                  {"vg_name":"data", "lv_name":"home", "origin":"", "lv_layout":"linear", "lv_role":"public", \
"lv_size":"104857600", "lv_kernel_major":"253", "lv_kernel_minor":"1", "vg_free":"205520896", \
"vg_extent_size":"4194304", "lv_snapshot_invalid":"unknown"},
                  {"vg_name":"data", "lv_name":"thin", "origin":"", "lv_layout":"thin,sparse", "lv_role":"public", \
"lv_size":"104857600", "lv_kernel_major":"253", "lv_kernel_minor":"4", "vg_free":"0", "vg_extent_size":"4194304", \
"lv_snapshot_invalid":"unknown"},
                  {"vg_name":"data", "lv_name":"old", "origin":"home", "lv_layout":"linear", \
"lv_role":"public,snapshot,thicksnapshot", "lv_size":"104857600", "lv_kernel_major":"253", "lv_kernel_minor":"5", \
"vg_free":"205520896", "vg_extent_size":"4194304", "lv_snapshot_invalid":""}
              ]
          }
      ]
  }
"""


def mount(device: str = "253:1", fstype: str = "xfs", root: str = "/") -> Mount:
    (found,) = parse(f"40 1 {device} {root} /srv rw,relatime - {fstype} /dev/mapper/data-home rw")
    return found


def volumes(code: int | None = 0, errors: str = "") -> Volumes:
    def run(argv: Sequence[str]) -> _process.Finished:
        if code is None:
            raise FileNotFoundError
        assert argv[0] == "lvs"
        return _process.Finished(list(argv), code, REPORT, errors, timed_out=False)

    return Volumes(run)


def origin(wanted: str = "10%", **more: Any) -> Lvm:
    return volumes().origin(mount(**more), wanted, Path("/run/places"))


def test_a_thick_snapshot_has_a_size_in_extents() -> None:
    for wanted, needed in (
        ("10%", 12),
        ("12%", 12),
        ("13%", 16),
        ("1Mi", 4),
        ("40Mi", 40),
        ("500%", 108),
        ("9Gi", 108),
    ):
        assert origin(wanted).needed == needed << 20, wanted
    assert origin().create_command("s") == [
        "lvcreate", "--yes", "--snapshot", "--name", "s", "--addtag", "clusterkit.backup", "--size", "12582912b",
        "data/home",
    ]  # fmt: skip


def test_a_thin_snapshot_needs_no_room_in_the_group() -> None:
    made = origin(device="253:4")
    assert (made.what, made.needed) == ("logical volume data/thin", 0)
    assert made.create_command("s")[-3:] == ["--setactivationskip", "n", "data/thin"]


@pytest.mark.parametrize(("fstype", "option"), [("xfs", "nouuid"), ("ext4", "noload"), ("ext3", "noload")])
def test_it_is_mounted_so_that_it_can_be_read_beside_its_origin(fstype: str, option: str) -> None:
    assert origin(fstype=fstype).mount_command("s") == [
        "mount", "--types", fstype, "--options", f"ro,nosuid,nodev,noexec,{option}", "--source", "/dev/data/s",
        "--target", "/run/places/s",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"device": "8:1"}, r"/srv \(xfs on /dev/mapper/data-home\) is neither btrfs nor a logical volume"),
        ({"fstype": "vfat"}, "data/home holds vfat; expected one of xfs, ext4, ext3"),
        ({"device": "253:5"}, "data/old is a snapshot itself"),
    ],
)
def test_of_what_none_can_be_made(given: dict[str, Any], words: str) -> None:
    with pytest.raises(BackupError, match=words):
        origin(**given)


def test_a_group_without_room_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    full = REPORT.replace('"vg_free":"205520896"', '"vg_free":"8388608"')
    monkeypatch.setattr(f"{__name__}.REPORT", full)
    assert origin("8%").needed == 8 << 20
    words = "volume group data has 8.0 MiB free; a snapshot of data/home needs 12.0 MiB"
    with pytest.raises(BackupError, match=words):
        origin("9%")


def test_hosts_without_lvm_and_reports_that_make_no_sense() -> None:
    with pytest.raises(BackupError, match="neither btrfs nor a logical volume"):
        volumes(None).origin(mount(), "10%", Path("/p"))
    with pytest.raises(BackupError, match=r"lvs .*: exit status 5: no permission"):
        volumes(5, "no permission").origin(mount(), "10%", Path("/p"))
    with pytest.raises(BackupError, match="is no report"):
        _snapshot_lvm.rows_of("[]")


def test_those_of_a_volume_are_known_by_their_origin() -> None:
    assert origin().left() == ["old"]
    assert origin(device="253:4").left() == []


@pytest.mark.parametrize("text", ["0%", "10", "x", "", "5%%", "-1Gi", "0"])
def test_sizes_that_are_none(text: str) -> None:
    problems = Settings("/r", "rsync", snapshot_size=text).problems()
    assert problems == ([] if text == "10" else [f"snapshot_size: {_snapshot_lvm.size_problem(text)}"])


@pytest.mark.parametrize("text", ["10%", "100%", "20Gi", "512M"])
def test_sizes(text: str) -> None:
    assert Settings("/r", "rsync", snapshot_size=text).problems() == []
