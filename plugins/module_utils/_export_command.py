# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""exportfs(8): have the files read again, and hear what it says of the exports that are wanted."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Sequence

from ansible_collections.clusterkit.storage.plugins.module_utils import _process
from ansible_collections.clusterkit.storage.plugins.module_utils._exports import Entry

# exportfs takes such a path into the table, and no client can mount it.
_NOT_EXPORTABLE = re.compile(
    r"exportfs: (?P<path>/.*) (?P<why>does not support NFS export|requires fsid= for NFS export)"
)
# Old versions say so about every export that leaves the default alone.
_CHATTER = re.compile(r"subtree_check|Assuming default behaviour|NOTE: this default")


class Exportfs:
    """The program of a server. C(warnings) gathers what it says that is not about the exports that are wanted."""

    def __init__(self, path: str, timeout: float) -> None:
        self._program = shutil.which("exportfs", path=path)
        self._timeout = timeout
        self.warnings: list[str] = []

    @property
    def is_installed(self) -> bool:
        return self._program is not None

    def read_again(self, paths: Iterable[str]) -> list[str]:
        """Make the table what the files say; return what makes exports of these paths useless."""
        return self._run(["-ra"], paths)

    def add(self, paths: Iterable[str]) -> list[str]:
        """Add to the table what the files say, and withdraw nothing; return as C(read_again)."""
        return self._run(["-a"], paths)

    def withdraw(self, entries: Sequence[Entry], paths: Iterable[str]) -> list[str]:
        return self._run(["-u", *map(name_of, entries)], paths) if entries else []

    def _run(self, words: Sequence[str], paths: Iterable[str]) -> list[str]:
        finished = _process.run([self._program or "exportfs", *words], timeout=self._timeout)
        if finished.timed_out:
            return [finished.complaint()]
        failures, known = [], set(paths)
        for line in finished.stderr.splitlines():
            match = _NOT_EXPORTABLE.fullmatch(line.strip())
            if match and match.group("path") in known:
                failures.append(f"{match.group('path')} {match.group('why')}")
            elif line.strip() and not _CHATTER.search(line):
                self.warnings.append(" ".join(line.split()))
        return failures


def name_of(entry: Entry) -> str:
    """Return an export as `exportfs -u` wants it."""
    address, slash, mask = entry.host.partition("/")
    if ":" in address:
        return f"[{address}]{slash}{mask}:{entry.path}"
    return f"{entry.host or '*'}:{entry.path}"
