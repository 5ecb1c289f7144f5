# SPDX-License-Identifier: GPL-3.0-or-later
"""Directories that hold everything that a file system can, and what tells one from another.

Nothing but Python's own library: a machine that has only this file can run it.
"""

from __future__ import annotations

import hashlib
import os
import random
import socket
import stat
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def acl(*users: int) -> bytes:
    """The extended attribute of an access ACL that lets these users read (linux/posix_acl_xattr.h)."""
    entries = [(0x01, 7, 0xFFFFFFFF), *((0x02, 4, user) for user in sorted(users)), (0x04, 5, 0xFFFFFFFF)]
    entries += [(0x10, 5, 0xFFFFFFFF), (0x20, 4, 0xFFFFFFFF)]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def odd_tree(root: Path, count: int, seed: int = 1) -> None:
    """Fill a directory with so many files, among them whatever programs stumble over."""
    chance = random.Random(seed)  # noqa: S311 - fills files
    top = os.fsencode(root)
    names = [
        b"new\nline", b"\xff\xfe not UTF-8", "Übergröße".encode(), b"n" * 255, b"back\\slash", b"\\#012", b" lead",
        b"tab\t", b"star*?[a]{b}", b"-rf", b"--delete", b"#hash", b"quote'\"", b"$(x)`y`", b"a -> b", b"..data", b"~",
        b"\x01\x7f",
    ]  # fmt: skip
    odd = root / "odd"
    odd.mkdir()
    for number, name in enumerate(names):
        (Path(os.fsdecode(top + b"/odd/" + name))).write_bytes(b"%d" % number)
    (odd / "empty").write_bytes(b"")
    (odd / "closed").mkdir(mode=0o000)
    (odd / "sticky").mkdir()
    (odd / "sticky").chmod(0o3777)
    (odd / "setuid").write_bytes(b"#!")
    os.chown(odd / "setuid", 1234, 4321)
    (odd / "setuid").chmod(0o6755)
    (odd / "dangling").symlink_to("/nowhere/\udcff\n")
    (odd / "up").symlink_to("../../..")
    os.lchown(odd / "up", 77, 88)
    os.mkfifo(odd / "fifo")
    os.mknod(odd / "device", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(odd)
        server.bind("socket")
        os.chdir(here)
    with (odd / "sparse").open("wb") as stream:
        stream.truncate(8 << 20)
        stream.seek(4 << 20)
        stream.write(b"middle")
    for word in ("acl", "attributes"):
        (odd / word).write_bytes(word.encode())
    os.setxattr(odd / "acl", "system.posix_acl_access", acl(1000, 2000))
    os.setxattr(odd, "system.posix_acl_default", acl(3000))
    os.setxattr(odd / "attributes", "user.note", b"\x00\xff kept")
    os.setxattr(odd / "attributes", "trusted.note", b"kept")
    for number in range(count):
        folder = root / f"d{number % 40}" / f"e{number % 7}"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"f{number}"
        if number % 50 == 49:
            os.link(root / f"d{(number - 1) % 40}" / f"e{(number - 1) % 7}" / f"f{number - 1}", path)
            continue
        if number % 50 == 24:
            path.symlink_to(f"f{number - 7}")
            continue
        path.write_bytes(chance.randbytes(chance.choice((0, 1, 700, 4096, 9000))))
        os.chown(path, number % 5, number % 3)
        path.chmod(chance.choice((0o600, 0o644, 0o755, 0o440)))
        os.utime(path, ns=(10**18 + number, 10**18 + number * 1_000_003 + 123_456_789))
    os.utime(odd / "empty", ns=(0, -86_400 * 10**9))
    os.utime(odd / "fifo", ns=(0, 4 * 10**18))
    os.chown(root, 99, 98)
    root.chmod(0o2770)
    os.setxattr(root, "user.root", b"of the volume")
    os.utime(root, ns=(0, 1_700_000_000_123_456_789))


def picture(
    root: Path, *, holes: bool = True, sockets: bool = True, times: bool = True
) -> dict[bytes, tuple[Any, ...]]:
    """Everything that tells one tree from another, by path."""
    top = os.fsencode(root)
    inodes: dict[int, bytes] = {}
    found: dict[bytes, tuple[Any, ...]] = {}
    for folder, folders, files in os.walk(top):
        for name in [b"."] * (folder == top) + folders + files:
            path = os.path.join(folder, name)  # noqa: PTH118 - names are bytes
            shown = os.path.relpath(path, top)
            if shown.split(b"/")[0] == b".clusterkit":
                continue
            is_ = os.lstat(path)
            kind = stat.S_IFMT(is_.st_mode)
            if kind == stat.S_IFSOCK and not sockets:
                continue
            content: Any = None
            if kind == stat.S_IFREG:
                content = hashlib.sha256(Path(os.fsdecode(path)).read_bytes()).hexdigest()
            elif kind == stat.S_IFLNK:
                content = os.readlink(path)  # noqa: PTH115 - names are bytes
            attributes = (
                sorted(
                    (n, os.getxattr(path, n, follow_symlinks=False)) for n in os.listxattr(path, follow_symlinks=False)
                )
                if kind != stat.S_IFLNK
                else []
            )
            first = inodes.setdefault(is_.st_ino, shown) if kind != stat.S_IFDIR else b""
            found[shown] = (
                oct(is_.st_mode), is_.st_uid, is_.st_gid, is_.st_rdev, content, attributes, first,
                is_.st_mtime_ns if times and kind != stat.S_IFLNK else None,
                # Zeros may become holes, and few do.
                holes and kind == stat.S_IFREG and is_.st_size > 1 << 16 and is_.st_blocks * 512 < is_.st_size // 2,
            )  # fmt: skip
    return found


def difference(one: Mapping[bytes, Any], other: Mapping[bytes, Any]) -> dict[bytes, Any]:
    """The first differences of two pictures; {} if there is none."""
    names = sorted(set(one) | set(other))
    return dict([(n, (one.get(n), other.get(n))) for n in names if one.get(n) != other.get(n)][:5])
