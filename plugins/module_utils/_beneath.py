# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Work below a directory that strangers write to, without ever leaving it.

Clients of an export can replace any directory by a symbolic link at any moment. So nothing here takes a path from the
root of the file system twice: everything hangs on open descriptors, links are never followed, and mount points are
never crossed, not even bind mounts of the same file system, which have the same device.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import os
import re
import stat
import struct
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

# The one folder in a share, or at the mount point of its file system, that is ours.
OWN = ".clusterkit"
NAME_MAX = 255
OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PATH_CHUNK = 2048  # bytes; the kernel takes 4,095 in one call

# openat2(2), Linux 5.6. System calls of its time have one number on every architecture.
_SYS_OPENAT2 = 437
_RESOLVE = 0x01 | 0x04 | 0x08  # RESOLVE_NO_XDEV, RESOLVE_NO_SYMLINKS, RESOLVE_BENEATH
_RENAME_NOREPLACE = 1
_RENAME_EXCHANGE = 2
_MANY = 32  # descriptors from which on flushing the whole file system costs less
# FS_IOC_FSGETXATTR and FS_IOC_FSSETXATTR of linux/fs.h: flags, extent size, extents, project, CoW extent size.
_GET_ATTRIBUTES, _SET_ATTRIBUTES = 0x801C581F, 0x401C5820
_ATTRIBUTES = struct.Struct("IIIII8x")
_PROJECT_INHERIT = 0x200

Identity = tuple[int, int]  # device, inode


class NotBeneath(ValueError):  # noqa: N818 - reads as what is wrong with a path
    """A path that leads, or could lead, out of the directory that it has to stay in."""


@dataclass
class _Kernel:
    """What the running kernel and its C library offer; tests turn things off."""

    libc: ctypes.CDLL
    openat2: bool
    renameat2: bool
    syncfs: bool  # and it tells of errors, Linux 5.8


@functools.lru_cache(maxsize=1)
def kernel() -> _Kernel:
    libc = ctypes.CDLL(None, use_errno=True)
    version = tuple(int(part) for part in re.findall(r"[0-9]+", os.uname().release)[:2])
    syncfs = hasattr(libc, "syncfs") and version >= (5, 8)
    found = _Kernel(libc, openat2=True, renameat2=hasattr(libc, "renameat2"), syncfs=syncfs)
    try:
        os.close(_openat2(found, -100, b"/", OPEN_DIRECTORY, 0))
    except OSError:
        # ENOSYS by an old kernel; EPERM by the filter of an old container run-time.
        found.openat2 = False
    return found


def _openat2(found: _Kernel, directory: int, path: bytes, flags: int, resolve: int) -> int:
    how = (ctypes.c_uint64 * 3)(flags, 0, resolve)
    for _attempt in range(100):
        descriptor = int(
            found.libc.syscall(
                ctypes.c_long(_SYS_OPENAT2),
                ctypes.c_int(directory),
                ctypes.c_char_p(path),
                ctypes.byref(how),
                ctypes.c_size_t(24),
            )
        )
        if descriptor >= 0:
            return descriptor
        number = ctypes.get_errno()
        # EAGAIN: somebody renamed or mounted something meanwhile, and the kernel could not be sure.
        if number not in (errno.EAGAIN, errno.EINTR):
            break
    raise OSError(number, os.strerror(number), os.fsdecode(path))


# --- paths as text -----------------------------------------------------------------------------------------


def parts_below(root: str, path: str) -> tuple[str, ...]:
    """Return the components of an absolute path below an absolute root, () for the root itself.

    Both have to be in their plain form: nothing is normalised away, because a path that needs it was put together
    from something that was empty, or from something that somebody else chose. Raises NotBeneath.
    """
    for name, text in (("the share", root), ("the path", path)):
        if not text.startswith("/"):
            raise NotBeneath(f"{name} {text!r} is not absolute")
        if "\0" in text:
            raise NotBeneath(f"{name} {text!r} has a zero byte in it")
        for part in text[1:].split("/") if text != "/" else []:
            if part in ("", ".", ".."):
                what = f'"{part}"' if part else "an empty part"
                raise NotBeneath(f"{name} {text!r} has {what} in it; expected a plain path, without trailing slash")
            if len(os.fsencode(part)) > NAME_MAX:
                raise NotBeneath(f"{name} {text!r} has a part of more than {NAME_MAX} bytes")
    if path == root:
        return ()
    above = root if root == "/" else f"{root}/"
    if not path.startswith(above):
        raise NotBeneath(f"{path!r} does not lie in {root!r}")
    parts = tuple(path[len(above) :].split("/"))
    if OWN in parts:
        raise NotBeneath(f"{path!r} lies in {OWN}, where quarantined directories are kept")
    return parts


# --- opening -----------------------------------------------------------------------------------------------


def open_root(path: str) -> int:
    """Open an absolute path in which no component is a symbolic link; mounts on the way are fine.

    Raises NotBeneath for a link, OSError for what does not exist or is no directory.
    """
    parts = parts_below("/", path)
    current = os.open("/", OPEN_DIRECTORY)
    for number, part in enumerate(parts):
        try:
            following = os.open(part, OPEN_DIRECTORY, dir_fd=current)
        except OSError as error:
            here = "/" + "/".join(parts[: number + 1])
            if _is_link(current, part):
                raise NotBeneath(f"{here} is a symbolic link; name the directory itself") from error
            raise OSError(error.errno, os.strerror(error.errno or 0), here) from error
        finally:
            os.close(current)
        current = following
    return current


def open_below(directory: int, parts: Sequence[str]) -> int:
    """Open the directory that `parts` lead to from an open one, on the same mount and without links.

    Raises NotBeneath for links and mount points on the way or at the end, OSError (ENOENT, ENOTDIR, EACCES, ...).
    """
    if not parts:
        return os.dup(directory)
    return (_open_by_kernel if kernel().openat2 else _open_by_walking)(directory, parts)


def open_child(directory: int, name: str) -> int:
    """As open_below, for one component; raises plain OSError: EXDEV for a mount point, ENOTDIR or ELOOP for a link."""
    found = kernel()
    if found.openat2:
        return _openat2(found, directory, os.fsencode(name), OPEN_DIRECTORY, _RESOLVE)
    descriptor = os.open(name, OPEN_DIRECTORY, dir_fd=directory)
    if _place(descriptor) != _place(directory):
        os.close(descriptor)
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), name)
    return descriptor


def _open_by_kernel(directory: int, parts: Sequence[str]) -> int:
    current = os.dup(directory)
    for chunk in _chunks(parts):
        try:
            following = _openat2(kernel(), current, os.fsencode("/".join(chunk)), OPEN_DIRECTORY, _RESOLVE)
        except OSError as error:
            # Once more, slowly: it is known then which component is to blame.
            with contextlib.suppress(OSError):
                os.close(_open_by_walking(current, chunk))
            raise _explained(error, "/".join(parts)) from error
        finally:
            os.close(current)
        current = following
    return current


def _chunks(parts: Sequence[str]) -> Iterator[list[str]]:
    chunk: list[str] = []
    size = 0
    for part in parts:
        length = len(os.fsencode(part)) + 1
        if chunk and size + length > _PATH_CHUNK:
            yield chunk
            chunk, size = [], 0
        chunk.append(part)
        size += length
    yield chunk


def _open_by_walking(directory: int, parts: Sequence[str]) -> int:
    home = _place(directory)
    current = os.dup(directory)
    for number, part in enumerate(parts):
        here = "/".join(parts[: number + 1])
        try:
            following = os.open(part, OPEN_DIRECTORY, dir_fd=current)
        except OSError as error:
            if _is_link(current, part):
                raise NotBeneath(f"{here} is a symbolic link") from error
            raise OSError(error.errno, os.strerror(error.errno or 0), here) from error
        finally:
            os.close(current)
        current = following
        if _place(current) != home:
            os.close(current)
            raise NotBeneath(f"{here} is a mount point")
    return current


def _explained(error: OSError, path: str) -> Exception:
    if error.errno == errno.EXDEV:
        return NotBeneath(f"{path} has a mount point in it")
    if error.errno == errno.ELOOP:
        return NotBeneath(f"{path} has a symbolic link in it")
    return OSError(error.errno, os.strerror(error.errno or 0), path)


def _is_link(directory: int, name: str) -> bool:
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode)
    except OSError:
        return False


def _place(descriptor: int) -> tuple[int, int]:
    """Return device and mount of an open directory: bind mounts of one file system differ in the second only."""
    return os.fstat(descriptor).st_dev, mount_id(descriptor)


def mount_id(descriptor: int) -> int:
    """Return the number that mountinfo gives to the mount that a descriptor was opened on (proc_pid_fdinfo(5))."""
    for line in Path(f"/proc/self/fdinfo/{descriptor}").read_text(encoding="ascii").splitlines():
        if line.startswith("mnt_id:"):
            return int(line.split()[1])
    raise OSError(errno.ENOSYS, "this kernel does not tell mounts apart (mnt_id in fdinfo, Linux 3.15)")


# --- looking and moving ------------------------------------------------------------------------------------


def look(directory: int, name: str) -> os.stat_result | None:
    """Return what stands under a name, a link as the link itself; None when there is nothing."""
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None


def identity(found: os.stat_result) -> Identity:
    return found.st_dev, found.st_ino


def rename_to_free_name(source: int, name: str, target: int, new_name: str) -> None:
    """Rename what stands under a name, a link as the link itself. Raises FileExistsError when the new name is taken."""
    if _renameat2(source, name, target, new_name, _RENAME_NOREPLACE):
        return
    if look(target, new_name) is not None:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), new_name)
    found = look(source, name)
    if found is not None and not stat.S_ISDIR(found.st_mode):
        # Unlike rename, link never replaces anything.
        os.link(name, new_name, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
        os.unlink(name, dir_fd=source)
        return
    # Whoever takes the name at this moment loses an empty directory at most: rename replaces nothing else by one.
    os.rename(name, new_name, src_dir_fd=source, dst_dir_fd=target)


def exchange(source: int, name: str, target: int, other: str) -> bool:
    """Exchange two names in one step; False where the file system or the C library cannot."""
    return _renameat2(source, name, target, other, _RENAME_EXCHANGE)


def _renameat2(source: int, name: str, target: int, new_name: str, flags: int) -> bool:
    if not kernel().renameat2:
        return False
    status = kernel().libc.renameat2(
        ctypes.c_int(source),
        ctypes.c_char_p(os.fsencode(name)),
        ctypes.c_int(target),
        ctypes.c_char_p(os.fsencode(new_name)),
        ctypes.c_uint(flags),
    )
    if status == 0:
        return True
    number = ctypes.get_errno()
    # File systems that do not know the flag, such as NFS, say EINVAL.
    if number in (errno.EINVAL, errno.ENOSYS):
        return False
    raise OSError(number, os.strerror(number), name)


def drop_project(directory: int) -> bool:
    """Take a project quota's project, and its inheritance, off a directory; tell whether there was one.

    Into a directory that inherits a project, what has another one cannot be renamed: EXDEV.
    """
    import fcntl

    buffer = bytearray(_ATTRIBUTES.size)
    try:
        fcntl.ioctl(directory, _GET_ATTRIBUTES, buffer)
    except OSError:
        return False  # no such file system
    flags, extent, extents, project, cow = _ATTRIBUTES.unpack(buffer)
    if not flags & _PROJECT_INHERIT and not project:
        return False
    fcntl.ioctl(directory, _SET_ATTRIBUTES, _ATTRIBUTES.pack(flags & ~_PROJECT_INHERIT, extent, extents, 0, cow))
    return True


def sync_all(descriptors: Collection[int]) -> None:
    """Flush open files and directories of one file system; many of them together with all else on it.

    That is one commit of its journal instead of one each. Raises OSError.
    """
    if len(descriptors) >= _MANY and kernel().syncfs:
        if kernel().libc.syncfs(ctypes.c_int(next(iter(descriptors)))) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return
    for descriptor in descriptors:
        sync(descriptor)


def sync(directory: int) -> None:
    """Flush an open file or directory; file systems that cannot flush directories say EINVAL and are left alone."""
    try:
        os.fsync(directory)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
