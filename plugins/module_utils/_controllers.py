# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which provisioner a Deployment or StatefulSet runs, and how it was put there.

DaemonSets are the node plugins of CSI drivers: they provision nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

KINDS = ("deployments", "statefulsets")
_DRIVER = re.compile(r"--drivername=(\S+)")


class Found(NamedTuple):
    provisioner: str
    locks: bool  # whether it takes a lock
    container: Mapping[str, Any]


def provisioners_of(item: Mapping[str, Any]) -> list[Found]:
    """The provisioners in the containers of a Deployment or StatefulSet."""
    found = []
    for container in item["spec"]["template"]["spec"].get("containers") or []:
        environment = _environment(container)
        name = environment.get("PROVISIONER_NAME")
        if name:
            election = environment.get("ENABLE_LEADER_ELECTION", "true").lower()
            found.append(Found(name, election not in ("false", "f", "0"), container))
        words = " ".join([*(container.get("command") or []), *(container.get("args") or [])])
        found += [Found(one, True, container) for one in _DRIVER.findall(words)]
    return found


def is_ready(item: Mapping[str, Any]) -> bool:
    return bool((item.get("status") or {}).get("readyReplicas"))


def records_of(kind: str, item: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A plain record for each provisioner in it, as the inputs are compared with."""
    metadata, spec = item["metadata"], item["spec"]
    labels = metadata.get("labels") or {}
    return [
        {
            "kind": {"deployments": "Deployment", "statefulsets": "StatefulSet"}[kind],
            "namespace": metadata["namespace"],
            "name": metadata["name"],
            "provisioner": found.provisioner,
            "image": found.container.get("image") or "",
            "server": _environment(found.container).get("NFS_SERVER", ""),
            "path": _environment(found.container).get("NFS_PATH", ""),
            "selector": dict((spec.get("selector") or {}).get("matchLabels") or {}),
            "release": (metadata.get("annotations") or {}).get("meta.helm.sh/release-name", ""),
            "chart": labels.get("helm.sh/chart") or labels.get("chart") or "",
        }
        for found in provisioners_of(item)
    ]


def _environment(container: Mapping[str, Any]) -> dict[str, str]:
    return {one["name"]: one.get("value", "") for one in container.get("env") or []}
