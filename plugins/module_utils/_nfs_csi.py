# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What csi-driver-nfs reads in its volumes and classes, and where a volume of it lies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DRIVER = "nfs.csi.k8s.io"


def told(attributes: Mapping[Any, Any]) -> dict[str, str]:
    """Attributes of a volume or parameters of a class, by names in small letters: the driver ignores case."""
    return {str(key).lower(): value for key, value in attributes.items() if isinstance(value, str)}


def place(attributes: Mapping[Any, Any]) -> tuple[str | None, str | None]:
    """Server and path of a volume, as the nodes mount it; None for what is not told.

    They go by the attributes alone. Since 4.1 the driver adds C(subdir) to them; before, C(share) was the whole path,
    and the third part of the handle was the end of it. A name that is filled in by each node that mounts the volume
    says nothing about where the data lies.
    """
    found = told(attributes)
    share, below = found.get("share", ""), found.get("subdir", "")
    server = found.get("server") or None
    if not share or "${" in share + below:
        return server, None
    return server, "/" + "/".join(filter(None, [share.strip("/"), below.strip("/")]))
