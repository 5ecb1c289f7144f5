# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Have systemd start the NFS server after the mounts that exports lie on."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from ansible_collections.clusterkit.storage.plugins.module_utils import _files, _process
from ansible_collections.clusterkit.storage.plugins.module_utils._export_host import Places


class OrderError(Exception):
    """Why systemd does not know of the order."""


class Order:
    """The drop-in of a file of exports, and what it shall hold; None: no drop-in."""

    def __init__(self, file: str, content: str | None, places: Places, timeout: float) -> None:
        """Raises OrderError."""
        self._timeout = timeout
        self._systemctl = shutil.which("systemctl", path=places.path)
        self.path = f"{places.units}/nfs-server.service.d/{Path(file).name}.conf"
        self.content = content
        try:
            self.old = _files.read_text(self.path) if self._systemctl else content
        except OSError as error:
            raise OrderError(_files.complaint(error)) from error
        self.file_changed = self.old != content
        # A run that was killed in between has written what systemd does not know yet.
        unread = ["show", "--property=NeedDaemonReload", "--value", "nfs-server.service"]
        known = self._systemctl is None or self.old is None or self._run(unread) != "yes"
        self.changed = self.file_changed or not known

    def apply(self) -> None:
        """Raises OrderError."""
        try:
            if self.content is None:
                _files.remove_file(self.path)
            elif self.file_changed:
                Path(self.path).parent.mkdir(mode=0o755, parents=True, exist_ok=True)
                _files.replace_file(self.path, self.content)
        except OSError as error:
            raise OrderError(f"{self.path} cannot be written: {_files.complaint(error)}") from error
        self._run(["daemon-reload"])

    def _run(self, words: Sequence[str]) -> str:
        finished = _process.run([self._systemctl or "systemctl", *words], timeout=self._timeout)
        if not finished.succeeded:
            raise OrderError(finished.complaint())
        return finished.stdout.strip()
