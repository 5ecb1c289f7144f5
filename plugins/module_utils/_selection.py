# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which volumes are meant: every criterion that is given must fit. No criterion at all is never everything."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils._paths import covers
from ansible_collections.clusterkit.storage.plugins.module_utils._times import duration, seconds_since
from ansible_collections.clusterkit.storage.plugins.module_utils._volumes import Volume

PHASES = ["Pending", "Available", "Bound", "Released", "Failed"]
POLICIES = ["Retain", "Delete", "Recycle"]

ARGUMENTS: dict[str, Any] = {
    "names": {"type": "list", "elements": "str"},
    "label_selectors": {"type": "list", "elements": "str"},
    "storage_classes": {"type": "list", "elements": "str"},
    "provisioners": {"type": "list", "elements": "str"},
    "drivers": {"type": "list", "elements": "str"},
    "phases": {"type": "list", "elements": "str", "choices": PHASES},
    "policies": {"type": "list", "elements": "str", "choices": POLICIES},
    "server": {"type": "str"},
    "path_prefix": {"type": "str"},
    "claim_namespaces": {"type": "list", "elements": "str"},
    "released_for": {"type": "str"},
    "abandoned": {"type": "bool"},
}


class Selection:
    """Criteria as in ARGUMENTS; raises ValueError when one of them makes no sense."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        self._given = {name: value for name, value in given.items() if value is not None}
        unknown = sorted(set(self._given) - set(ARGUMENTS))
        if unknown:
            raise ValueError(f'selection: "{unknown[0]}" is not a criterion; known are {", ".join(sorted(ARGUMENTS))}')
        for name, value in self._given.items():
            if value in ([], ""):
                raise ValueError(f"selection.{name} is empty; leave it out to select by other criteria")
        self._released_for = duration(self._given["released_for"]) if "released_for" in self._given else None

    @property
    def is_empty(self) -> bool:
        return not self._given

    @property
    def label_selector(self) -> str:
        """For the API, which knows all forms of selectors."""
        return ",".join(self._given.get("label_selectors", []))

    @property
    def asks_for_provisioners(self) -> bool:
        return "abandoned" in self._given

    def fits(self, volume: Volume, now: float) -> bool:
        """C(now) is the API server's time. Labels are left to the API."""
        given = self._given
        if "names" in given and not _like(volume.name, given["names"]):
            return False
        for name, value in (
            ("storage_classes", volume.storage_class),
            ("provisioners", volume.provisioner),
            ("phases", volume.phase),
            ("policies", volume.policy),
            ("server", volume.server),
        ):
            if name in given and value not in ([given[name]] if name == "server" else given[name]):
                return False
        if "drivers" in given and not {volume.driver, volume.csi_driver} & set(given["drivers"]):
            return False
        if "path_prefix" in given and not (volume.path and covers(given["path_prefix"], volume.path)):
            return False
        if "claim_namespaces" in given and not (volume.claim and _like(volume.claim[0], given["claim_namespaces"])):
            return False
        if "abandoned" in given and (volume.provisioner_state == "stopped") is not given["abandoned"]:
            return False
        if self._released_for is not None:
            age = seconds_since(volume.released_at, now)
            return age is not None and age >= self._released_for
        return True


def _like(text: str, patterns: Iterable[str]) -> bool:
    return any(text == one or fnmatchcase(text, one) for one in patterns)


def by_name(volumes: Iterable[Volume]) -> Sequence[Volume]:
    return sorted(volumes, key=lambda one: one.name)
