# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How steps on directories of volumes end, and what a run tells of them."""

from __future__ import annotations

import errno
import os
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils._volume_dirs import Step

Item = dict[str, Any]
RESULTS = ("changed", "unchanged", "refused", "stale", "gone", "failed", "not_started")


class Stop(Exception):  # noqa: N818 - ends one step, not the run
    """How a step ends early."""

    def __init__(self, state: str, reason: str, *, changed: bool = False) -> None:
        super().__init__(reason)
        self.state = state
        self.reason = reason
        self.changed = changed


@dataclass
class Outcome:
    """What a run did. `problem` says why it counts as failed."""

    items: list[Item] = field(default_factory=list)
    recovered: list[dict[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    before: list[str] = field(default_factory=list)  # lines of the diff
    after: list[str] = field(default_factory=list)
    problem: str = ""
    prepared: bool = False  # folders or owner files were made or changed
    plan_id: str | None = None

    @property
    def changed(self) -> bool:
        return self.prepared or bool(self.recovered) or any(item["changed"] for item in self.items)

    @property
    def diff(self) -> dict[str, str]:
        return {name: "".join(f"{line}\n" for line in getattr(self, name)) for name in ("before", "after")}

    def summary(self) -> dict[str, int]:
        counted = Counter(item["state"] for item in self.items)
        return {state: counted[state] for state in RESULTS}


def not_planned(step: Step, found: os.stat_result) -> str:
    device, inode = step.precondition or (0, 0)
    return (
        f"{step.directory or step.entry} is not what was planned: device {found.st_dev}, inode {found.st_ino} found, "
        f"device {device}, inode {inode} expected"
    )


def across(error: OSError) -> Exception:
    """Say what EXDEV means between two directories of one file system."""
    if error.errno != errno.EXDEV:
        return error
    return Stop(
        "failed",
        "it cannot be renamed there (EXDEV): a bind mount lies between, or the directory that it goes into inherits "
        "another project of a project quota (xfs_io -c 'chattr -P')",
    )


def words(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error)
    return str(error)
