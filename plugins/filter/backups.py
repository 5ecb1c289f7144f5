# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils import _backup_summary, _shares


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {
            "backup_claims": _backup_summary.claims,
            "backup_commands": _backup_summary.commands,
            "backup_left": _backup_summary.left,
            "backup_ready": _backup_summary.ready,
            "backup_summary": _backup_summary.backup,
            "backup_volumes": _backup_summary.volumes,
            "backup_workloads": _backup_summary.workloads,
            "restore_objects": _backup_summary.objects,
            "restore_restored": _backup_summary.restored,
            "restore_summary": _backup_summary.restore,
            "storage_servers": _shares.found_servers,
        }
