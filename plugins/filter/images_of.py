# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils import _objects


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"images_of": _objects.images_of}
