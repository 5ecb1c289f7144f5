# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The NFS servers of a host's mounts: which answer, which are meant by a name, and how long one is waited for."""

from __future__ import annotations

import errno
import ipaddress
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from ansible_collections.clusterkit.storage.plugins.module_utils._mount_checks import NOT_BEGUN
from ansible_collections.clusterkit.storage.plugins.module_utils._mount_input import Wanted
from ansible_collections.clusterkit.storage.plugins.module_utils._mounts import Mount, MountTable
from ansible_collections.clusterkit.storage.plugins.module_utils._nfs_mounts import Situation
from ansible_collections.clusterkit.storage.plugins.module_utils._nfs_mounts_host import Machine
from ansible_collections.clusterkit.storage.plugins.module_utils._nfs_mounts_result import Result
from ansible_collections.clusterkit.storage.plugins.module_utils._process import Finished

# Asking for a name's addresses, and a server for a sign of life, takes no longer where all is well.
_SHORT = 10.0
_NULL_CALL = "the NULL call"


class Servers:
    """The servers of one call of the module."""

    def __init__(self, machine: Machine, timeout: float) -> None:
        self.machine = machine
        self.timeout = timeout
        self._silent: dict[str, str] = {}  # server -> what it gave no answer to
        self._lock = threading.Lock()
        self._addresses: dict[str, set[str]] = {}

    def look_at_health(
        self, items: Sequence[Wanted], situation: Situation
    ) -> tuple[Situation, dict[int, list[str]], list[str]]:
        """Find mounts of the list whose directory the server knows no longer; notes by mount id, and warnings.

        Only mounts whose server answers are tried, by a child process each: nothing of a dead server is touched.
        """
        mounts = []
        for item in items:
            if item.state == "mounted":
                top = situation.table.find(_resolved(situation.table, item.path)).top
                if top is not None and top.is_nfs and top.server is not None:
                    mounts.append(top)
        seconds = min(self.timeout, _SHORT) / 2
        silent = self._silent_servers([mount.server for mount in mounts if mount.server is not None], seconds)
        notes: dict[int, list[str]] = {}
        for mount in mounts:
            if mount.server in silent:
                notes[mount.mount_id] = [f"its server {mount.server_address} does not answer, so it was not touched"]
        asked = [mount for mount in mounts if mount.server not in silent]
        checks = self.machine.check(asked, seconds) if asked else {}
        for number, check in checks.items():
            if check.error is None:
                silence = f"gave no answer within {seconds:g} s, though its server answers"
                notes[number] = [silence if check.begun else f"was not tried: {NOT_BEGUN}"]
        stale = frozenset(number for number, check in checks.items() if check.error == errno.ESTALE)
        warnings = [f"{address} does not answer; its mounts were not touched" for address, _port in sorted(silent)]
        for address, _port in silent:
            self._silent.setdefault(address, _NULL_CALL)
        return replace(situation, stale=stale), notes, warnings

    def silent(self, table: MountTable) -> list[str]:
        """Return the addresses of servers that do not answer; those of mounts of the host are asked if need be."""
        if self._silent:
            return sorted(self._silent)
        servers = [mount.server for mount in table.mounts if mount.server is not None]
        return sorted({address for address, _port in self._silent_servers(servers, _SHORT / 2)})

    def _silent_servers(self, servers: Sequence[tuple[str, int]], seconds: float) -> set[tuple[str, int]]:
        unique = sorted(set(servers))
        if not unique:
            return set()
        with ThreadPoolExecutor(max_workers=len(unique)) as pool:
            answers = list(pool.map(lambda server: self.machine.server_answers(server[0], server[1], seconds), unique))
        return {server for server, answered in zip(unique, answers) if not answered}

    def is_same(self, host: str, mount: Mount) -> bool:
        address = mount.server_address
        return address is not None and _normal_address(address) in self._addresses_of(host)

    def _addresses_of(self, host: str) -> set[str]:
        if host not in self._addresses:
            self._addresses[host] = self._ask_addresses(host)
        return self._addresses[host]

    def _ask_addresses(self, host: str) -> set[str]:
        try:
            return {_normal_address(str(ipaddress.ip_address(host.partition("%")[0])))}
        except ValueError:
            pass
        # A child process: the resolver of this process would wait for dead name servers without limit.
        finished = self.machine.run(["getent", "ahosts", host], _SHORT)
        return {_normal_address(line.split()[0]) for line in finished.stdout.splitlines() if line.strip()}

    def command(
        self, result: Result, argv: list[str], server: str | None, *, needs_server: bool = True
    ) -> Finished | None:
        """Run a command that may wait for a server; None, with the item failed, when the server keeps silent.

        A server that let one command wait until the deadline is not asked again: 50 mounts of it would otherwise
        cost 50 deadlines. To unmount needs no answer as a rule, so that is tried on a server that is silent, too.
        """
        with self._lock:
            silent_at = self._silent.get(server or "")
        if silent_at is not None and (needs_server or silent_at != _NULL_CALL):
            result.failure = f"not tried: {server} gave no answer to {silent_at}"
            return None
        finished = self.machine.run(argv, self.timeout)
        if finished.timed_out:
            if server:
                with self._lock:
                    self._silent[server] = f"{argv[0]} for {result.planned.wanted.path} within {self.timeout:g} s"
            words = " ".join(finished.stderr.split())
            result.failure = f"{argv[0]}: no answer from {server} within {self.timeout:g} s" + (
                f": {words}" if words else ""
            )
            return None
        return finished


def _resolved(table: MountTable, path: str) -> str:
    try:
        return table.resolve(path)
    except OSError:
        return path


def _normal_address(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    mapped = getattr(parsed, "ipv4_mapped", None)
    return str(mapped or parsed)
