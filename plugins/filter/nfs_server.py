# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils import _directories, _export_list, _export_options


def export_problems(exports: Sequence[Mapping[str, Any]], allow_world: bool = False) -> list[str]:
    return _export_list.read_list(exports, allow_world=allow_world, dialect=_export_options.NEWEST)[1]


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {
            "export_problems": export_problems,
            "directory_problems": _directories.list_problems,
        }
