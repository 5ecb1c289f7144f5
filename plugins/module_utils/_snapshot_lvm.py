# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Snapshots of logical volumes, thick or thin, mounted read-only in a folder of root's.

The device itself can be written to: XFS has to finish there what its log says before it can be mounted.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ansible_collections.clusterkit.storage.plugins.module_utils import _mounts, _process, _quantity
from ansible_collections.clusterkit.storage.plugins.module_utils._backup import BackupError, size
from ansible_collections.clusterkit.storage.plugins.module_utils._beneath import open_below, open_root
from ansible_collections.clusterkit.storage.plugins.module_utils._mounts import Mount

TAG = "clusterkit.backup"
# Without nouuid XFS refuses a second file system of one UUID; without noload ext4 would play its journal again.
OPTIONS = {"xfs": "nouuid", "ext4": "noload", "ext3": "noload"}
_FIELDS = (
    "vg_name", "lv_name", "origin", "lv_layout", "lv_role", "lv_size", "lv_kernel_major", "lv_kernel_minor", "vg_free",
    "vg_extent_size", "lv_snapshot_invalid",
)  # fmt: skip
LVS = ["lvs", "--reportformat", "json", "--units", "b", "--nosuffix", "--options", ",".join(_FIELDS)]
_SECONDS = 600.0  # the file system writes out what it has in memory first

Run = Callable[[Sequence[str]], _process.Finished]


def _run(argv: Sequence[str]) -> _process.Finished:
    return _process.run(argv, timeout=_SECONDS)


def size_problem(text: str) -> str:
    """What is wrong with the size of a snapshot, percent of its origin or a quantity."""
    try:
        if _bytes(text, 100) > 0:
            return ""
    except ValueError:
        pass
    return f"{text!r} is no size; expected percent of what the snapshot is of, or a quantity such as 20Gi"


def _bytes(text: str, origin: int) -> int:
    percent = re.fullmatch(r"([0-9]{1,3})%", text)
    return origin * int(percent[1]) // 100 if percent else _quantity.to_bytes(text)


@dataclass
class Volumes:
    """The logical volumes of this host; they are asked for when somebody wants to know."""

    run: Run = _run

    def rows(self) -> list[Mapping[str, str]]:
        """Raises BackupError."""
        try:
            done = self.run(LVS)
        except FileNotFoundError:
            return []
        if not done.succeeded:
            raise BackupError(done.complaint())
        return rows_of(done.stdout)

    def origin(self, mount: Mount, wanted: str, places: Path) -> Lvm:
        """The logical volume that is mounted. Raises BackupError when there can be no snapshot of it."""
        row = next((one for one in self.rows() if _device(one) == mount.device), None)
        if row is None:
            raise BackupError(f"{mount.path} ({mount.fstype} on {mount.source}) is neither btrfs nor a logical volume")
        name = f"{row['vg_name']}/{row['lv_name']}"
        if mount.fstype not in OPTIONS:
            raise BackupError(f"{name} holds {mount.fstype}; expected one of {', '.join(OPTIONS)}")
        is_thin = "thin" in row["lv_layout"].split(",")
        if not is_thin and "snapshot" in row["lv_role"].split(","):
            raise BackupError(f"{name} is a snapshot itself")
        extent = int(row["vg_extent_size"])
        # One that has room for all of its origin, and its own tables, cannot become full.
        most = int(int(row["lv_size"]) * 1.01) + extent
        needed = 0 if is_thin else -(-min(_bytes(wanted, int(row["lv_size"])), most) // extent) * extent
        if needed > int(row["vg_free"]):
            raise BackupError(
                f"volume group {row['vg_name']} has {size(int(row['vg_free']))} free; a snapshot of {name} needs "
                f"{size(needed)}"
            )
        return Lvm(row["vg_name"], row["lv_name"], needed, mount, places, self)


def rows_of(text: str) -> list[Mapping[str, str]]:
    """What lvs reports. Raises BackupError."""
    try:
        return [row for report in json.loads(text)["report"] for row in report["lv"]]
    except (ValueError, KeyError, TypeError) as error:
        raise BackupError(f"lvs: {text[:80]!r} is no report") from error


def _device(row: Mapping[str, str]) -> str:
    return f"{row['lv_kernel_major']}:{row['lv_kernel_minor']}"


@dataclass
class Lvm:
    """A logical volume with a mounted file system. C(needed): bytes for a thick snapshot, 0 for a thin one."""

    group: str
    name: str
    needed: int
    mount: Mount
    places: Path
    volumes: Volumes = field(default_factory=Volumes)
    kind = "lvm"

    @property
    def what(self) -> str:
        return f"logical volume {self.group}/{self.name}"

    def close(self) -> None:
        """There is nothing to close."""

    def left(self) -> list[str]:
        """Names of the snapshots that are there. Raises BackupError."""
        return [
            row["lv_name"] for row in self.volumes.rows() if (row["vg_name"], row["origin"]) == (self.group, self.name)
        ]

    def create_command(self, name: str) -> list[str]:
        # A thin snapshot takes its room from the pool, and is not made active by itself.
        how = ["--size", f"{self.needed}b"] if self.needed else ["--setactivationskip", "n"]
        return ["lvcreate", "--yes", "--snapshot", "--name", name, "--addtag", TAG, *how, f"{self.group}/{self.name}"]

    def mount_command(self, name: str) -> list[str]:
        options = f"ro,nosuid,nodev,noexec,{OPTIONS[self.mount.fstype]}"
        return [
            "mount", "--types", self.mount.fstype, "--options", options, "--source", f"/dev/{self.group}/{name}",
            "--target", str(self.places / name),
        ]  # fmt: skip

    def make(self, name: str) -> None:
        """Raises BackupError."""
        self._do(self.create_command(name))
        (self.places / name).mkdir(mode=0o700)
        self._do(self.mount_command(name))

    def open(self, name: str, inside: str) -> int:
        """A directory in a snapshot, by its path in the file system."""
        root = open_root(str(self.places / name))
        try:
            return open_below(root, [part for part in inside.split("/") if part])
        finally:
            os.close(root)

    def remove(self, name: str) -> None:
        """Raises BackupError, also for one that has become full: what was read of it was cut short."""
        place = self.places / name
        if any(one.path == str(place) for one in _mounts.read().mounts):
            self._do(["umount", str(place)])
        if place.exists():
            place.rmdir()
        row = next((one for one in self.volumes.rows() if (one["vg_name"], one["lv_name"]) == (self.group, name)), {})
        self._do(["lvremove", "--yes", f"{self.group}/{name}"])
        if row.get("lv_snapshot_invalid") == "snapshot invalid":
            raise BackupError(f"it had become full at {size(self.needed)}, and what was copied then has gaps")

    def _do(self, argv: Sequence[str]) -> None:
        try:
            done = self.volumes.run(argv)
        except FileNotFoundError as error:
            raise BackupError(f"{argv[0]} is not installed") from error
        if not done.succeeded:
            raise BackupError(done.complaint())
