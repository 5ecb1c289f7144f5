# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""systemd's part in a host's mounts: it reads fstab when told to, and keeps the triggers that mount at first access."""

from __future__ import annotations

from ansible_collections.clusterkit.storage.plugins.module_utils import _fstab, _systemd_units
from ansible_collections.clusterkit.storage.plugins.module_utils._mounts import Mount
from ansible_collections.clusterkit.storage.plugins.module_utils._nfs_mounts_host import Machine
from ansible_collections.clusterkit.storage.plugins.module_utils._nfs_mounts_servers import Servers

_SHORT = 10.0


class Systemd:
    """systemd on this host."""

    def __init__(self, machine: Machine, servers: Servers, timeout: float) -> None:
        self.machine = machine
        self.servers = servers
        self.timeout = max(timeout, _SHORT)

    def reload(self, failures: list[str], warnings: list[str]) -> bool:
        """Tell it of a new fstab: it mounts by units made from the old one until then. False: it was not told."""
        if not self.machine.has_systemd():
            return True
        silent = self.servers.silent(self.machine.read_table())
        if silent:
            # systemd-fstab-generator looks at each mount point, and process 1 waits up to 90 s for it.
            warnings.append(
                f"systemd was not told of the new {_fstab.FSTAB}: {', '.join(silent)} does not answer, "
                "and systemd would wait for it; run systemctl daemon-reload when it does"
            )
            return False
        finished = self.machine.run(["systemctl", "daemon-reload"], self.timeout)
        if not finished.succeeded:
            failures.append(finished.complaint())
        return finished.succeeded

    def stop_trigger(self, path: str, trigger: Mount) -> str | None:
        """Stop the automount trigger at a path; returns why it is still there."""
        unit = _systemd_units.unit_of(path, "automount")
        finished = self.machine.run(["systemctl", "stop", "--", unit], self.timeout)
        if any(mount.mount_id == trigger.mount_id for mount in self.machine.read_table().mounts):
            words = finished.complaint() or f"systemctl stop {unit} reported success"
            return f"its automount trigger cannot be stopped: {words}"
        return None

    def start_trigger(self, path: str) -> str | None:
        """Start the automount trigger at a path; returns why there is none."""
        unit = _systemd_units.unit_of(path, "automount")
        finished = self.machine.run(["systemctl", "start", "--", unit], self.timeout)
        if not any(mount.fstype == "autofs" for mount in self.machine.read_table().find(path).stack):
            words = finished.complaint() or f"systemctl start {unit} reported success"
            return f"its automount trigger cannot be started: {words}"
        return None
