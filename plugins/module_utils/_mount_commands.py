# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The commands that mount and unmount NFS, and what their failures mean. Pure: nothing is run here."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ansible_collections.clusterkit.storage.plugins.module_utils import _mount_options
from ansible_collections.clusterkit.storage.plugins.module_utils._process import Finished

SEARCH_PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
OWN_NAMESPACE = ["unshare", "--mount", "--propagation", "private", "--"]
# $1 mode, $2 owner, $3 group, $4 path
_MAKE_DIRECTORY = (
    '[ -d "$4" ] || { mkdir -p -- "$(dirname -- "$4")" && install -d -m "$1" -o "$2" -g "$3" -- "$4" && echo made; }'
)
# $1 how many mounts to take away, $2 path, then the mount command. In a namespace of its own: "umount -l" takes
# away the copies of that namespace only, and what is mounted there goes with the process.
_TRY = (
    'count=$1; path=$2; shift 2; while [ "$count" -gt 0 ]; '
    'do umount -i -l -- "$path" || exit; count=$((count - 1)); done; exec "$@"'
)
# With -i umount(8) asks no helper: for NFSv3 umount.nfs would first tell the server, which does not answer.
_UNMOUNT = {"normal": ["umount"], "lazy": ["umount", "-i", "-l"], "abort": ["umount", "-i", "-f", "-l"]}


def mount(source: str, path: str, options: Sequence[str]) -> list[str]:
    """Return the command that mounts now, with what is said at once when it fails."""
    given = _mount_options.for_a_mount_now(options)
    if not any(option.startswith("retry=") for option in given):
        # One try: mount.nfs would hide the server's reason behind two minutes of trying.
        given.append("retry=0")
    return ["mount", "-t", "nfs", "-o", ",".join(given), source, path]


def try_mount(command: Sequence[str], path: str, covered_by: int) -> list[str]:
    """Return a command that tries a mount command where nobody sees it, with the top mounts of the path away."""
    return [*OWN_NAMESPACE, "sh", "-c", _TRY, "sh", str(covered_by), path, *command]


def unmount(path: str, how: str) -> list[str]:
    """Return the command that takes the top mount away: `normal`, `lazy` (umount -l) or `abort` (umount -f -l)."""
    return [*_UNMOUNT[how], path]


def make_directory(path: str, mode: int, uid: int, gid: int) -> list[str]:
    """Return a command that makes a directory and then says "made"."""
    return ["sh", "-c", _MAKE_DIRECTORY, "sh", f"{mode:o}", str(uid), str(gid), path]


def failure(finished: Finished, source: str, options: Sequence[str]) -> str:
    """Return the server's reason for a failed mount in words, with what it usually means."""
    words = " ".join(finished.stderr.split()).replace("mount.nfs4: ", "").replace("mount.nfs: ", "")
    denied = "the path is not exported to this host"
    if _mount_options.uses_unreserved_port(options):
        denied += ", or only for reserved ports: noresvport needs insecure in the export"
    hints = (
        ("access denied by server", denied),
        ("Operation not permitted", denied),
        ("No such file or directory", "the server has no such path, or does not export it"),
        ("Stale file handle", "the server's directory was removed or made again while it was exported"),
        ("Connection refused", "no NFS server listens there"),
        ("Protocol not supported", "the server does not serve this NFS version"),
        ("mount system call failed", "most likely the server did not answer"),
    )
    for fragment, hint in hints:
        if fragment in words:
            return f"{words} ({hint})"
    return words or f"mount of {source} failed with exit status {finished.returncode}"
