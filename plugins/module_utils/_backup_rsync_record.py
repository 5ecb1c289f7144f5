# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What rsync says while it copies, written down as the list of a generation.

rsync lists files before it opens them, and prints the size from its list: of a file that grew or shrank in between,
the copy has another one. So sizes are taken from the copies. rsync names a file when it has sent it, and the copy gets
its name a little later: a file that was copied waits for that.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from ansible_collections.clusterkit.storage.plugins.module_utils import _backup_files
from ansible_collections.clusterkit.storage.plugins.module_utils._backup import Progress
from ansible_collections.clusterkit.storage.plugins.module_utils._backup_files import KnownDigests
from ansible_collections.clusterkit.storage.plugins.module_utils._backup_settings import Result

_COUNTED = {kind.encode(): name for kind, name in _backup_files.COUNTED.items()}


class UnreadError(Exception):
    """A file could not be read to its end, or became shorter meanwhile."""


class AttributesFoundError(Exception):
    """Something has an ACL or another extended attribute, as far as can be told."""


class Record:
    """Writes the list of a generation while rsync copies it."""

    def __init__(
        self,
        target: Path,
        known: Sequence[KnownDigests],
        sink: IO[bytes] | None,
        result: Result,
        state: Progress,
        *,
        careful: bool,
        plain: int | None = None,
    ) -> None:
        """C(careful): a file that cannot be read is left out; otherwise UnreadError is raised.

        C(plain): the open source of a copy without attributes; AttributesFoundError is raised when anything has some.
        """
        self._target = os.fsencode(target) + b"/"
        self._known = known
        self._sink = sink
        self._result = result
        self._state = state
        self._careful = careful
        # llistxattr(2) takes no name relative to a directory.
        self._plain = None if plain is None else b"/proc/%d/fd/%d/" % (os.getpid(), plain)
        self._not_read: set[bytes] = set()
        self._sent: deque[tuple[bytes, bytes, bytes]] = deque()  # names, digests, and the rest of their lines
        self._of_inode: dict[tuple[int, int], bytes] = {}

    def text(self, text: bytes) -> None:
        """Take in what rsync said, whole lines of it."""
        result = self._result
        # A file that is sent twice may lie there from the first time.
        list_lines = [] if self._careful else self._arrived()
        told = _backup_files.told(text)
        names = [_backup_files.unescaped(one[4].split(b"|", 5)[5]) for one in told]
        if self._plain and any(map(has_attributes, [self._plain + name for name in names])):
            raise AttributesFoundError
        for (how, kind, flags, digest, rest), name in zip(told, names):
            if self._sink and digest == _backup_files.NOT_READ:  # in a dry run nothing is
                if not self._careful:
                    raise UnreadError
                self._not_read.add(self._target + name)
                continue
            if self._not_read:
                self._not_read.discard(self._target + name)
            if digest and self._sink:
                self._sent.append((name, digest, rest))
                continue
            result.counts[_COUNTED[kind]] += 1
            if kind == b"f":
                if self._sink:
                    digest, rest = self._look_up(how, flags, rest, self._target + name)
                length = int(rest.partition(b"|")[0])
                result.bytes += length
                if how in b"<>c":
                    result.changed += 1
                    result.copied_bytes += length
            elif kind == b"L" and self._sink:
                digest = _backup_files.digest_of_link(self._target + name).encode()
            list_lines.append(_backup_files.list_line(kind, digest, rest))
        self._state.files += len(told)
        if self._sink:
            self._sink.write(b"".join(list_lines))

    def end(self) -> None:
        """Take in that rsync has ended; take away what it has left of files that it could not read to their ends.

        Raises OSError.
        """
        missing: list[bytes] = []
        while self._sink and self._sent:
            self._sink.write(b"".join(self._arrived()))
            if self._sent:
                missing.append(self._sent.popleft()[0])
        if missing:
            self._result.complete = False
            self._result.problems.append(
                f"{len(missing)} files were read and are not in the copy, {_backup_files.shown(missing[0])} among them"
            )
        for path in self._not_read:
            folder = os.path.dirname(path)  # noqa: PTH120 - names are bytes
            with contextlib.suppress(FileNotFoundError):  # that rsync has left nothing of it is as well
                was = os.lstat(folder)
                os.unlink(path)  # noqa: PTH108 - names are bytes
                os.utime(folder, ns=(was.st_atime_ns, was.st_mtime_ns))

    def _arrived(self) -> list[bytes]:
        """Lines of the list for files that have been sent, up to the first whose copy is not there yet."""
        result, lines, total = self._result, [], 0
        while self._sent:
            name, digest, rest = self._sent[0]
            try:
                size = os.lstat(self._target + name).st_size
            except FileNotFoundError:
                break
            self._sent.popleft()
            total += size
            lines.append(_backup_files.list_line(b"f", digest, _with_size(rest, size)))
        result.counts[_COUNTED[b"f"]] += len(lines)
        result.changed += len(lines)
        result.bytes += total
        result.copied_bytes += total
        return lines

    def _look_up(self, how: bytes, flags: bytes, rest: bytes, path: bytes) -> tuple[bytes, bytes]:
        """Digest and the rest of the line of a file that rsync has not read."""
        # rsync names no time to the nanosecond: another name of a file that has just been copied may have had another
        # content in the same second. All of its flags are blank only if it comes from an older generation.
        if flags.isspace() or how != b"h":
            for known in self._known:
                digest = known.find(rest)
                if digest:
                    return digest, rest
        # Another name of a file that has just been copied, or one of a killed run whose list stops before it.
        found = os.lstat(path)
        if not stat.S_ISREG(found.st_mode):
            return b"", rest
        key = (found.st_dev, found.st_ino)
        if key not in self._of_inode:
            self._of_inode[key] = _backup_files.digest_of(path).encode()
        return self._of_inode[key], _with_size(rest, found.st_size)


def _with_size(rest: bytes, size: int) -> bytes:
    there = b"%d|" % size
    return rest if rest.startswith(there) else there + rest.partition(b"|")[2]


def has_attributes(path: bytes | int) -> bool:
    """Whether a file or an open directory has an ACL or another extended attribute; True when nobody can tell.

    llistxattr(2) names ACLs too, as system.posix_acl_access and system.posix_acl_default. What has vanished may have
    had some, and may be in the copy.
    """
    try:
        return bool(os.listxattr(path) if isinstance(path, int) else os.listxattr(path, follow_symlinks=False))
    except OSError:
        return True


def count(source: int, state: Progress) -> None:
    """Count what is to be copied, beside the copy."""
    number = total = 0
    with contextlib.suppress(OSError):
        # Clients may put a link in the place of a directory meanwhile: fwalk notices.
        for _path, folders, files, descriptor in os.fwalk(".", dir_fd=source):
            number += len(folders) + len(files)
            for name in files:
                with contextlib.suppress(OSError):
                    total += os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_size
        state.total_bytes, state.total_files = total, number + 1


def lines_of(stack: contextlib.ExitStack, path: Path) -> Iterator[bytes]:
    with contextlib.suppress(OSError):
        yield from stack.enter_context(path.open("rb"))
