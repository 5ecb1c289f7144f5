# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The name by which NFSv4 servers know a client: its host name and, before it, the kernel's nfs4_unique_id.

A server that meets the same name twice takes the second client for the first one after a reboot, and drops the
first one's opens and locks (RFC 8881, 18.35; nfs(5), "NFSv4 client identifier"). Cloned machines do that to each
other.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ansible_collections.clusterkit.storage.plugins.module_utils import _files

_LONGEST = 63  # NFS4_CLIENT_ID_UNIQ_LEN of the kernel


@dataclass(frozen=True)
class Places:
    """Where the identifier stands."""

    modprobe: str = "/etc/modprobe.d/clusterkit-nfs.conf"  # for the next time that the kernel loads its NFS client
    parameter: str = "/sys/module/nfs/parameters/nfs4_unique_id"  # now, if it is loaded


@dataclass(frozen=True)
class Change:
    """What was, or in check mode would be, changed."""

    changed: bool
    before: str  # content of the file
    after: str
    live: str | None  # the identifier that was in force; None if the NFS client is not loaded


def diff(change: Change | None) -> list[dict[str, str]]:
    """Return the change of the file as Ansible shows it."""
    if change is None or change.before == change.after:
        return []
    name = Places.modprobe
    return [{"before_header": name, "after_header": name, "before": change.before, "after": change.after}]


def problem(identifier: str) -> str | None:
    """Return what is wrong with an identifier."""
    if re.fullmatch(rf"[A-Za-z0-9._-]{{1,{_LONGEST}}}", identifier):
        return None
    return f'nfs4_unique_id: "{identifier}" must be 1 to {_LONGEST} letters, digits, ".", "_" or "-"'


def ensure(identifier: str, *, check_mode: bool, places: Places | None = None) -> Change:
    """Give this host its identifier, now and after the next boot. Raises OSError."""
    places = places or Places()
    before = _files.read_text(places.modprobe) or ""
    after = (
        "# Written by clusterkit.storage: what NFSv4 servers know this client by, see nfs(5).\n"
        f"options nfs nfs4_unique_id={identifier}\n"
    )
    parameter = _files.read_text(places.parameter)
    live = None if parameter is None else parameter.strip()
    if not check_mode:
        if before != after:
            _files.replace_file(places.modprobe, after)
        if live is not None and live != identifier:
            with open(places.parameter, "w", encoding="ascii") as stream:  # noqa: PTH123 (no file: it cannot be replaced)
                stream.write(identifier)
    return Change(before != after or live not in (None, identifier), before, after, live)
