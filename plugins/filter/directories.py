# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils import _cleanup_summary


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {
            "directories_done": _cleanup_summary.done,
            "directories_fine": _cleanup_summary.fine,
            "directories_listings": _cleanup_summary.listings,
            "directories_mounts": _cleanup_summary.mounts,
            "directories_problems": _cleanup_summary.problems,
            "directories_to_do": _cleanup_summary.to_do,
            "lease_dead_pids": _cleanup_summary.dead_pids,
            "lease_owner": _cleanup_summary.lease_owner,
            "shares_in_use": _cleanup_summary.shares_in_use,
            "shares_of": _cleanup_summary.shares_of,
        }
