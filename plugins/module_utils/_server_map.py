# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the server and path that a client writes to the host and directory that are meant, by storage_servers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ansible_collections.clusterkit.storage.plugins.module_utils import _addresses
from ansible_collections.clusterkit.storage.plugins.module_utils._paths import covers, plain


class Place(NamedTuple):
    """A directory of a host. C(share) is the root of the share that it lies in, or is."""

    host: str
    share: str
    directory: str


class ServerMap:
    """C(servers) as storage_servers has them."""

    def __init__(self, servers: Sequence[Mapping[str, Any]]) -> None:
        self._known = {one["name"]: [one["name"], *(one.get("addresses") or [])] for one in servers}
        self._hosts = {one["name"]: str(one.get("host") or one["name"]) for one in servers}
        self._shares: dict[str, list[tuple[str, str]]] = {}
        for one in servers:
            pairs = [(plain(share["client_path"]), plain(share["server_path"])) for share in one.get("shares") or []]
            # The longest one that covers a path is meant.
            self._shares.setdefault(one["name"], []).extend(sorted(pairs, key=lambda pair: len(pair[0]), reverse=True))
        self._owners: dict[str, str | None] = {}
        ends = (client.rpartition("/")[2] for pairs in self._shares.values() for client, _root in pairs)
        self._special = {"", ".", "..", *ends}  # last parts of paths that say more than a name below a share
        self._folders: dict[tuple[str, str], tuple[str, str, str] | None] = {}

    def owner(self, server: str) -> str | None:
        """Return the name of the entry that a client means by C(server); None when there is none, or more than one."""
        if server not in self._owners:
            found = _addresses.owners(server, self._known)
            self._owners[server] = found[0] if len(found) == 1 else None
        return self._owners[server]

    def host(self, server: str) -> str | None:
        """Return the host of the inventory behind a server."""
        owner = self.owner(server)
        return None if owner is None else self._hosts[owner]

    def find(self, server: str | None, path: str | None) -> Place | None:
        """Return what is meant, None when nobody knows for sure."""
        if not server or not path or not path.startswith("/"):
            return None
        folder, _slash, name = path.rpartition("/")
        if name in self._special:
            return self._find(server, path)
        # No share begins here, so it lies where the folder does, as thousands of volumes do.
        key = (server, folder)
        if key not in self._folders:
            above = self._find(server, folder or "/")
            self._folders[key] = above and (above.host, above.share, f"{above.directory.rstrip('/')}/")
        found = self._folders[key]
        return Place(found[0], found[1], found[2] + name) if found else None

    def _find(self, server: str, path: str) -> Place | None:
        if ".." in path.split("/"):
            return None
        owner = self.owner(server)
        if owner is None:
            return None
        path = plain(path)
        fitting = [pair for pair in self._shares[owner] if covers(pair[0], path)]
        meant = {server_path for client_path, server_path in fitting if client_path == fitting[0][0]}
        if len(meant) != 1:
            return None
        [root] = meant
        below = path[len(fitting[0][0].rstrip("/")) :].rstrip("/")
        return Place(self._hosts[owner], root, root.rstrip("/") + below or "/")

    def roots(self) -> dict[str, list[str]]:
        """Return the roots of all shares, by host, sorted."""
        found: dict[str, set[str]] = {}
        for name, pairs in self._shares.items():
            found.setdefault(self._hosts[name], set()).update(root for _client, root in pairs)
        return {host: sorted(roots) for host, roots in found.items()}
