# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils import _recover_summary


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {
            "recovery": _recover_summary.summary,
            "recovery_left": _recover_summary.left,
            "recovery_pods": _recover_summary.pods,
            "recovery_steps": _recover_summary.steps,
        }
