# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading files, and replacing them so that a crash leaves the old or the new content, never a part."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

# How long a second run waits for a first one that replaces the same file.
LOCK_SECONDS = 10.0


def read_text(path: str) -> str | None:
    """Return a file's content, None when there is none; bytes that are not UTF-8 survive a round trip."""
    try:
        return Path(path).read_bytes().decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        return None


def complaint(error: OSError) -> str:
    """Return what is wrong with a file, in words that name it; where a file stands in place of a folder, that one."""
    path = str(error.filename or "")
    if isinstance(error, NotADirectoryError):
        for folder in reversed(Path(path).parents):
            if folder.exists() and not folder.is_dir():
                return f"{folder} is not a directory; {path} has to lie in it"
    return f"{path}: {error.strerror}" if path and error.strerror else str(error)


def replace_file(path: str, content: str | bytes, *, mode: int | None = None) -> None:
    """Give `path` a new content in one step, flushed to disk before this returns.

    Owner, extended attributes (SELinux context, ACL) and, unless `mode` is given, the mode of an existing
    file are kept; a new file gets 0644. A symlink stays, its target is replaced. Raises OSError; then the
    old content is still there.
    """
    data = content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content
    target = Path(os.path.realpath(path))
    # A fixed name: what a killed run left behind is taken over by the next one instead of piling up.
    beside = target.with_name(f".{target.name}.clusterkit-new")
    descriptor = _open_locked(beside)
    try:
        os.ftruncate(descriptor, 0)
        write_all(descriptor, data)
        _take_over(target, descriptor, mode)
        os.fsync(descriptor)
        beside.rename(target)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
    sync_folder(target.parent)


def replace_lines(path: str, lines: Iterable[str]) -> None:
    """The same with lines, in a file that is its owner's alone: what modules keep for each other."""
    replace_file(path, "".join(f"{line}\n" for line in lines), mode=0o600)


def remove_file(path: str) -> None:
    """Remove a file for good; one that does not exist is no error."""
    target = Path(path)
    target.unlink(missing_ok=True)
    sync_folder(target.parent)


@contextlib.contextmanager
def locked(path: str, timeout: float) -> Iterator[None]:
    """Let one process of this machine at a time go on; raises TimeoutError after C(timeout) seconds of waiting."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + timeout
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TimeoutError(errno.ETIMEDOUT, "another process has had it for too long", path) from None
                time.sleep(0.1)
        yield
    finally:
        os.close(descriptor)


def sync_folder(folder: str | Path) -> None:
    """Flush a folder's entries: without it a rename may be undone by a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # file systems that cannot flush folders say so
            raise
    finally:
        os.close(descriptor)


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of it, however little one call takes."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _open_locked(path: Path) -> int:
    """Open the file beside the target, empty or left behind, so that no other run writes it."""
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_still(path, descriptor):
                return descriptor
        except BlockingIOError:
            pass
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        if time.monotonic() > deadline:
            raise TimeoutError(errno.ETIMEDOUT, "another run has been writing this file for too long", str(path))
        time.sleep(0.02)


def _is_still(path: Path, descriptor: int) -> bool:
    """Tell whether the locked file still has its name: the run before us may have renamed it into place."""
    ours = os.fstat(descriptor)
    if not stat.S_ISREG(ours.st_mode) or ours.st_nlink > 1:
        raise PermissionError(errno.EPERM, "something else stands where the new content would go", str(path))
    try:
        there = path.lstat()
    except FileNotFoundError:
        return False
    return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)


def _take_over(target: Path, descriptor: int, mode: int | None) -> None:
    """Give the new file what the old one has, besides its content."""
    try:
        old = target.stat()
    except FileNotFoundError:
        os.fchmod(descriptor, 0o644 if mode is None else mode)
        return
    mine = os.fstat(descriptor)
    if (old.st_uid, old.st_gid) != (mine.st_uid, mine.st_gid):
        os.fchown(descriptor, old.st_uid, old.st_gid)
    try:
        names = os.listxattr(target)
    except OSError as error:
        if error.errno not in (errno.ENOTSUP, errno.ENOSYS):
            raise
        names = []
    for name in names:
        os.setxattr(descriptor, name, os.getxattr(target, name))
    # After chown, which clears setuid bits, and after the ACL, whose mask is the group's mode.
    os.fchmod(descriptor, stat.S_IMODE(old.st_mode) if mode is None else mode)
