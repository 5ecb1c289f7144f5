# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What NFSv4 clients have open, as nfsd tells it in /proc/fs/nfsd/clients/*/states (Linux 5.3).

A line names a file by device and inode. NFSv3 has no state: its clients cannot be known.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

NFSD = "/proc/fs/nfsd"
# fs/nfsd/nfs4state.c: seq_printf(s, "superblock: \"%02x:%02x:%ld\"", major, minor, inode).
_STATE = re.compile(r'\btype: (\w+).*\bsuperblock: "([0-9a-f]+):([0-9a-f]+):(-?[0-9]+)"')
_NAME = re.compile(r'^name: "(.*)"$', re.MULTILINE)
_ADDRESS = re.compile(r'^address: "(.*)"$', re.MULTILINE)


@dataclass
class OpenState:
    """`known` is False where no nfsd of this machine says anything: not a server, or a kernel that is too old.

    It is False in its grace period, too: after a reboot clients tell it first what they had open before.
    """

    known: bool = False
    grace: bool = False
    nfsv3: bool = False  # whether the server speaks NFSv3, too
    holders: dict[str, dict[int, set[str]]] = field(default_factory=dict)  # device ("8:1"), inode, clients

    def inodes(self, device: str) -> dict[int, set[str]]:
        return self.holders.get(device, {})


def read(nfsd: str = NFSD) -> OpenState:
    """Return what is open at this moment."""
    state = OpenState(nfsv3=_speaks_3(nfsd))
    try:
        clients = sorted((Path(nfsd) / "clients").iterdir())
    except OSError:
        return state
    state.grace = _in_grace(nfsd)
    state.known = not state.grace
    for client in clients:
        try:
            lines = (client / "states").read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            continue  # it has just left
        except OSError:
            state.known = False
            continue
        name = _name(client)
        for device, inode in parse(lines):
            state.holders.setdefault(device, {}).setdefault(inode, set()).add(name)
    return state


def parse(lines: Iterable[str]) -> Iterable[tuple[str, int]]:
    """Return device and inode of each state: opens, locks, delegations and layouts."""
    for line in lines:
        match = _STATE.search(line)
        if match:
            # The kernel prints the inode as a signed number.
            yield f"{int(match[2], 16)}:{int(match[3], 16)}", int(match[4]) % 2**64


def _name(client: Path) -> str:
    try:
        info = (client / "info").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return f"client {client.name}"
    address = _ADDRESS.search(info)
    name = _NAME.search(info)
    return (address or name or ["", f"client {client.name}"])[1]


def _in_grace(nfsd: str) -> bool:
    """fs/nfsd/nfsctl.c: write_v4_end_grace says N also where nfsd does not run."""
    try:
        runs = int((Path(nfsd) / "threads").read_text(encoding="ascii")) > 0
        return runs and (Path(nfsd) / "v4_end_grace").read_text(encoding="ascii").strip() == "N"
    except (OSError, ValueError):
        return False


def _speaks_3(nfsd: str) -> bool:
    try:
        return "+3" in (Path(nfsd) / "versions").read_text(encoding="ascii").split()
    except OSError:
        return False
