# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A quarantined directory: its folder `trash/NAME` in `.clusterkit`, whose manifest says by its name how far it is."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils._beneath import look, sync
from ansible_collections.clusterkit.storage.plugins.module_utils._own_files import read_json, slug

DATA = "data"
MANIFEST, RESTORING, PURGING = "manifest.json", "restoring.json", "purging.json"
MANIFESTS = {MANIFEST: "quarantined", RESTORING: "restoring", PURGING: "purging"}


@dataclass
class Entry:
    """An open folder in the trash."""

    name: str
    descriptor: int

    def close(self) -> None:
        os.close(self.descriptor)

    def __enter__(self) -> Entry:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def data(self) -> os.stat_result | None:
        return look(self.descriptor, DATA)

    def read(self) -> tuple[str, dict[str, Any]] | None:
        """Return the name of the manifest, which is the state, and its content; None when there is none."""
        for name in (PURGING, RESTORING, MANIFEST):
            found = read_json(self.descriptor, name, "Manifest")
            if found is not None:
                return name, found
        return None

    def set_state(self, old: str, new: str) -> None:
        os.rename(old, new, src_dir_fd=self.descriptor, dst_dir_fd=self.descriptor)
        sync(self.descriptor)


def entry_name(now: float, volume: Mapping[str, Any] | None, directory: str, inode: int) -> str:
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    if volume:
        return f"{stamp}-{slug(volume['name'])}-{volume['uid']}"
    return f"{stamp}-{slug(directory.rpartition('/')[2])}-inode{inode}"


def entry_key(name: str) -> str:
    """Return what all entries of the same volume, or directory, have in common."""
    return re.sub(r"\.[0-9]+$", "", name[len("20260101T000000Z") :])
