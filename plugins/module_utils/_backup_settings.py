# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where backups are kept and how gently they are made: the arguments that backup, restore and verification share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils import _snapshot_lvm, _snapshots

ENGINES = ("restic", "rsync")
PASSWORDS = ("password", "password_file", "password_command")

REPOSITORY_ARGUMENTS: dict[str, Any] = {
    "engine": {"type": "str", "choices": list(ENGINES), "default": "restic"},
    "repository": {"type": "str", "required": True},
    "password": {"type": "str", "no_log": True},
    "password_file": {"type": "path", "no_log": False},
    "password_command": {"type": "str", "no_log": False},
    "environment": {"type": "dict", "default": {}, "no_log": True},
    "backend_options": {"type": "list", "elements": "str", "default": []},
}
COPY_ARGUMENTS: dict[str, Any] = {
    "parallel": {"type": "int", "default": 2},
    "bandwidth": {"type": "int", "default": 0},
    "nice": {"type": "int", "default": 10},
    "ionice": {"type": "str", "choices": ["none", "best-effort", "idle"], "default": "best-effort"},
    "progress_file": {"type": "path", "default": "/run/clusterkit.storage/backup.log"},
    "progress_interval": {"type": "int", "default": 10},
}
# Whose backup it is, and which.
VOLUME_ARGUMENTS: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "namespace": {"type": "str", "default": ""},
}
GENERATION_ARGUMENTS: dict[str, Any] = {**VOLUME_ARGUMENTS, "generation": {"type": "str", "default": "latest"}}


@dataclass(frozen=True)
class Settings:
    """As the arguments of a module."""

    repository: str
    engine: str = "restic"
    password: str | None = field(default=None, repr=False)
    password_file: str | None = None
    password_command: str | None = None
    environment: Mapping[str, Any] = field(default_factory=dict, repr=False)
    backend_options: Sequence[str] = ()
    bandwidth: int = 0  # KiB/s of all together
    nice: int = 0
    ionice: str = "none"
    progress_file: str = ""
    progress_interval: int = 10
    parallel: int = 1
    checksum: bool = False
    snapshot: str = _snapshots.NONE
    snapshot_size: str = "10%"

    @property
    def bandwidth_of_one(self) -> int:
        return max(self.bandwidth // self.parallel, 1) if self.bandwidth else 0

    def problems(self) -> list[str]:
        """Everything that is wrong, before the host is looked at."""
        found = []
        given = [name for name in PASSWORDS if getattr(self, name) is not None]
        if self.engine == "rsync":
            if not self.repository.startswith("/") or ".." in self.repository.split("/"):
                found.append(f'repository: {self.repository!r} is not an absolute path without ".."')
            if given or self.environment or self.backend_options:
                what = (given + [n for n in ("environment", "backend_options") if getattr(self, n)])[0]
                found.append(f"{what}: the engine rsync has no use for it; plain trees are not encrypted")
        else:
            if not self.repository:
                found.append("repository: is empty")
            if len(given) != 1:
                what = f"are given together: {', '.join(given)}" if given else "is missing"
                found.append(f"password: {what}; expected one of {', '.join(PASSWORDS)}")
            elif not getattr(self, given[0]):
                found.append(f"{given[0]}: is empty")
            if self.checksum:
                found.append("checksum: restic reads what has changed by size, times or inode; it has no such option")
        for name, least in (("bandwidth", 0), ("progress_interval", 1), ("parallel", 1)):
            if getattr(self, name) < least:
                found.append(f"{name}: {getattr(self, name)} is less than {least}")
        problem = _snapshot_lvm.size_problem(self.snapshot_size)
        if problem:
            found.append(f"snapshot_size: {problem}")
        if not 0 <= self.nice <= 19:
            found.append(f"nice: {self.nice} is not a number from 0 to 19")
        return found


def of_arguments(arguments: Mapping[str, Any]) -> Settings:
    names = Settings.__dataclass_fields__
    return Settings(**{name: value for name, value in arguments.items() if name in names})


@dataclass
class Result:
    """What one backup did."""

    generation: str = ""
    path: str | None = None
    complete: bool = True
    counts: Counter[str] = field(default_factory=Counter)
    bytes: int = 0
    changed: int = 0  # files whose content was stored anew
    copied_bytes: int = 0  # that the repository has grown by, or that had to be read and copied
    vanished: int = 0
    problems: list[str] = field(default_factory=list)
