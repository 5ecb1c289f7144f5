# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an NFS server is doing at the moment, in bounded time. Reads only."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.clusterkit.storage.plugins.module_utils import (
    _export_host,
    _export_options,
    _export_table,
    _exports,
    _files,
    _process,
)
from ansible_collections.clusterkit.storage.plugins.module_utils._export_host import Places

MOUNTD_PROGRAM = 100005


@dataclass
class ServerInfo:
    """The result; None stands for what could not be learned, `unavailable` says why."""

    exports: list[dict[str, Any]] = field(default_factory=list)
    files: list[dict[str, Any]] = field(default_factory=list)
    nfs_utils_version: str | None = None
    versions: list[str] | None = None
    threads: int | None = None
    programs: list[dict[str, Any]] | None = None
    mount_list: list[dict[str, Any]] | None = None
    unavailable: dict[str, str] = field(default_factory=dict)


def collect(places: Places, *, timeout: float, nfsd: str = "/proc/fs/nfsd") -> ServerInfo:
    """Ask the files, the kernel, rpcbind and mountd."""
    info = ServerInfo()
    version = _export_host.nfs_utils_version(places.path, timeout)
    if version is None:
        info.unavailable["nfs_utils_version"] = "rpc.mountd is not installed"
        dialect = _export_options.NEWEST
    else:
        info.nfs_utils_version = ".".join(str(part) for part in version)
        dialect = _export_options.Dialect(version, _export_host.flavor_flags(places))

    table = _files.read_text(places.table)
    if table is None:
        info.unavailable["exports"] = f"{places.table} does not exist"
    info.exports = [
        {"path": entry.path, "host": entry.host or "*", "options": entry.meaning.options()}
        for entry in _exports.parse(table or "", dialect).effective
    ]
    for path, text in _export_host.exports_files(places).items():
        file = _export_table.read_foreign(path, text, dialect)
        info.files.append(
            {
                "path": path,
                "exports": [
                    {"path": entry.path, "host": entry.host or "*", "line": entry.line, "lost": entry.lost}
                    for entry in file.read.entries
                ],
                "problems": file.warnings(),
            }
        )

    versions, threads = _files.read_text(f"{nfsd}/versions"), _files.read_text(f"{nfsd}/threads")
    if versions is None or threads is None:
        info.unavailable["versions"] = info.unavailable["threads"] = f"{nfsd} is not mounted: nfsd never ran"
    else:
        info.versions, info.threads = parse_versions(versions), int(threads)

    answer = _ask(info, "programs", ["rpcinfo", "-p", "127.0.0.1"], places, timeout)
    info.programs = None if answer is None else parse_rpcinfo(answer)
    if info.programs is None:
        info.unavailable["mount_list"] = "unknown whether mountd is there: no answer from rpcbind"
    elif not any(program["program"] == MOUNTD_PROGRAM for program in info.programs):
        info.unavailable["mount_list"] = "mountd is not registered: NFSv3 is not served"
    else:
        answer = _ask(info, "mount_list", ["showmount", "--no-headers", "-e", "127.0.0.1"], places, timeout)
        info.mount_list = None if answer is None else parse_showmount(answer)
    return info


def _ask(info: ServerInfo, what: str, argv: list[str], places: Places, timeout: float) -> str | None:
    """Run a command; note why when it has no answer."""
    program = shutil.which(argv[0], path=places.path)
    if program is None:
        info.unavailable[what] = f"{argv[0]} is not installed"
        return None
    finished = _process.run([program, *argv[1:]], timeout=timeout)
    if not finished.succeeded:
        info.unavailable[what] = finished.complaint()
        return None
    return finished.stdout


def parse_versions(text: str) -> list[str]:
    """Return the NFS versions that are served, from "-2 +3 +4 -4.0 +4.1 +4.2".

    The kernel never says "+4.0": "+4" implies it unless "-4.0" is there (nfsd_print_version_support, fs/nfsd/nfsctl.c).
    """
    words = text.split()
    served = []
    for word in words:
        if word == "+4":
            served += [] if {"-4.0", "+4.0"} & set(words) else ["4.0"]
        elif word.startswith("+"):
            served.append(word[1:])
    return served


def parse_rpcinfo(text: str) -> list[dict[str, Any]]:
    """Return the registered programs, from `rpcinfo -p`."""
    programs = []
    for line in text.splitlines():
        match = re.fullmatch(r"\s*(\d+)\s+(\d+)\s+(\w+)\s+(\d+)(?:\s+(\S+))?\s*", line)
        if match:
            program, version, protocol, port, name = match.groups()
            programs.append(
                {
                    "program": int(program),
                    "version": int(version),
                    "protocol": protocol,
                    "port": int(port),
                    "name": name or "",
                }
            )
    return programs


def parse_showmount(text: str) -> list[dict[str, Any]]:
    """Return what mountd offers, from `showmount --no-headers -e`."""
    found = []
    for line in text.splitlines():
        path, _separator, clients = line.rstrip().rpartition(" ")
        if path:
            hosts = ["*" if host == "(everyone)" else host for host in clients.split(",")]
            found.append({"path": path.rstrip(), "hosts": hosts})
    return found
