# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files of a generation as a list: what the engines tell of them, and whether a tree is what the list says.

A line of the list: type, digest, size, time, permissions, owner, group, path, with `|` between them; the path as
rsync(1) prints it, with everything that is not plain ASCII as `\\#ooo`. The digest of a file is the MD5 of its
content (rsync computes it while it copies), that of a symbolic link the MD5 of where it leads.
"""

from __future__ import annotations

import calendar
import datetime
import hashlib
import os
import re
import stat
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ansible_collections.clusterkit.storage.plugins.module_utils._backup import BackupError, Generation

FILE, DIRECTORY, LINK, DEVICE, SPECIAL = "f", "d", "L", "D", "S"
COUNTED = {FILE: "files", DIRECTORY: "directories", LINK: "links", DEVICE: "devices", SPECIAL: "specials"}
# What rsync is asked to print of every file; %C is blank for what was not read.
OUT_FORMAT = "%i|%C|%l|%M|%B|%U|%G|%n"
# In place of the digest of a file that could not be read to its end. rsync tries such a file twice.
NOT_READ = b"0" * 32
_TOLD = re.compile(rb"^([<>ch.])([fdLDS])([-+. ?a-zA-Z]{9})\|([0-9a-f]*) *\|(\d+\|.*)$", re.MULTILINE)
_ESCAPED = re.compile(rb"\\#([0-7]{3})")
_PLAIN = frozenset(range(0x20, 0x7F))
_CHUNK = 1 << 20
_SHOWN = 20


class Entry(NamedTuple):
    """One file of a generation, of whichever type."""

    type: str
    path: bytes  # b"." for the root
    size: int
    mtime: int | None
    mode: int
    uid: int
    gid: int
    digest: str = ""


# --- names -------------------------------------------------------------------------------------------------


def unescaped(name: bytes) -> bytes:
    if b"\\#" not in name:  # as in nearly all names
        return name
    return _ESCAPED.sub(lambda found: bytes([int(found[1], 8) & 0xFF]), name)


def escaped(path: bytes) -> bytes:
    """As rsync prints a name, so that one name has one line."""
    text = b"".join(bytes([each]) if each in _PLAIN else b"\\#%03o" % each for each in path)
    # A name that looks like an escape is escaped itself.
    return re.sub(rb"\\(?=#[0-7]{3})", rb"\\#134", text) if _ESCAPED.search(path) else text


def shown(path: bytes) -> str:
    return os.fsdecode(escaped(path))


# --- what rsync says ---------------------------------------------------------------------------------------


def told(text: bytes) -> list[tuple[bytes, bytes, bytes, bytes, bytes]]:
    """Read lines of rsync's output in OUT_FORMAT; any other line is passed over.

    Of each file: how it came (`<`, `>`: read from the source, its digest stands in the line; `c`: a directory, a link,
    or a file with the content of an older generation; `h`: linked from there, or another name of a file),
    its type, what rsync has changed of it, its digest, and all from its size to its name as it stands in the line.
    """
    return _TOLD.findall(text)


def list_line(kind: bytes, digest: bytes, rest: bytes) -> bytes:
    return b"%b|%b|%b\n" % (kind, digest, rest)


def read_line(line: bytes) -> Entry:
    """Raises ValueError for what is no line of a list."""
    kind, digest, length, time_, permissions, owner, group, name = line.rstrip(b"\n").split(b"|", 7)
    path = unescaped(name)
    return Entry(
        kind.decode(),
        path.rstrip(b"/") if kind == b"d" else path,
        int(length),
        calendar.timegm(time.strptime(time_.decode(), "%Y/%m/%d-%H:%M:%S")),
        _mode(permissions.decode()),
        int(owner),
        int(group),
        digest.decode(),
    )


def _mode(text: str) -> int:
    """Bits of `rwxr-sr-t`."""
    bits = 0
    for position, letter in enumerate(text):
        if letter in "rwxst":
            bits |= 0o400 >> position
        if letter in "sStT":
            bits |= 0o4000 >> (position // 3)
    return bits


class KnownDigests:
    """Digests of an older list, asked for in nearly its own order: only what was passed over is kept in memory."""

    _DIGEST = slice(2, 34)
    _REST = slice(35, None)

    def __init__(self, lines: Iterable[bytes]) -> None:
        # The last line of a killed run may be a part of one.
        self._lines = (
            line for line in lines if line.startswith(b"f|") and line.endswith(b"\n") and line.count(b"|") > 6
        )
        self._next = next(self._lines, b"")
        self._passed: dict[bytes, tuple[list[bytes], bytes]] = {}

    def find(self, rest: bytes) -> bytes | None:
        """Return the digest of the file, as told, if it has the size and the time that it had then."""
        line = self._next
        if line[self._REST] == rest + b"\n":  # unchanged, as nearly all files are
            self._next = next(self._lines, b"")
            return line[self._DIGEST]
        wanted, name = self._parts(rest)
        found = self._passed.pop(name, None)
        while found is None and self._next:
            _type, digest, there = self._next.rstrip(b"\n").split(b"|", 2)
            self._next = next(self._lines, b"")
            then, its_name = self._parts(there)
            if its_name == name:
                found = (then, digest)
            else:
                self._passed[its_name] = (then, digest)
        return found[1] if found and found[0] == wanted and found[1] else None

    @staticmethod
    def _parts(rest: bytes) -> tuple[list[bytes], bytes]:
        """Size and time; the name."""
        size, time_, _permissions, _owner, _group, name = rest.split(b"|", 5)
        return [size, time_], name


# --- what restic says --------------------------------------------------------------------------------------

_GO_TYPES = {"file": FILE, "dir": DIRECTORY, "symlink": LINK, "dev": DEVICE, "chardev": DEVICE}


def of_node(node: Mapping[str, Any], above: str = "/data") -> Entry | None:
    """Read a node of `restic ls --json`; None for what does not lie in the volume."""
    path = node.get("path", "")
    if node.get("struct_type") != "node" or not (path == above or path.startswith(f"{above}/")):
        return None
    mode = int(node.get("mode", 0))
    # Go keeps these three bits elsewhere (FileMode of its package io/fs).
    special = bool(mode & 1 << 23) << 11 | bool(mode & 1 << 22) << 10 | bool(mode & 1 << 20) << 9
    kind = _GO_TYPES.get(node.get("type", ""), SPECIAL)
    return Entry(
        kind,
        path[len(above) + 1 :].encode("utf-8", "surrogateescape") or b".",
        int(node.get("size") or 0) if kind == FILE else 0,
        _seconds(node.get("mtime")),
        mode & 0o777 | special,
        int(node.get("uid", 0)),
        int(node.get("gid", 0)),
    )


def _seconds(text: str | None) -> int | None:
    """Whole seconds of a time as Go prints it, in any time zone."""
    found = re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?(Z|[+-]\d\d:\d\d)", text or "")
    if found is None:
        return None
    zone = "+00:00" if found[2] == "Z" else found[2]
    return int(datetime.datetime.fromisoformat(found[1] + zone).timestamp())


def replaced(path: bytes) -> str:
    """A name as JSON carries it: bytes that are not UTF-8 come as U+FFFD, how many depends on the program."""
    return re.sub("\ufffd+", "\ufffd", path.decode("utf-8", "replace"))


def needed(
    entries: Iterable[Entry], paths: Sequence[str], generation: Generation, *, lossy: bool = False
) -> tuple[int, int]:
    """Bytes and files of a restore. Raises BackupError for a path that is not in the generation.

    C(lossy): names went through JSON.
    """
    names, found = _names(paths, lossy=lossy), dict.fromkeys(paths, False)
    total = files = 0
    for entry in entries:
        text = _text(entry, lossy=lossy)
        inside = next((path for path in paths if f"{text}/".startswith(f"{names[path]}/")), None)
        if inside is not None:
            found[inside] = True
        if not paths or inside is not None:
            total += entry.size if entry.type == FILE else 0
            files += 1
    missing = [path for path, there in found.items() if not there]
    if missing:
        raise BackupError(f"{generation.key}: generation {generation.generation[:16]} has no {missing[0]!r}")
    return total, files


def chosen(entries: Iterable[Entry], paths: Sequence[str], *, lossy: bool = False) -> Iterator[Entry]:
    """The entries that a restore of these paths brings back; of all without paths."""
    names = _names(paths, lossy=lossy).values()
    for entry in entries:
        if not paths or any(f"{_text(entry, lossy=lossy)}/".startswith(f"{name}/") for name in names):
            yield entry


def _names(paths: Sequence[str], *, lossy: bool) -> dict[str, str]:
    return {path: replaced(os.fsencode(path)) if lossy else path for path in paths}


def _text(entry: Entry, *, lossy: bool) -> str:
    return replaced(entry.path) if lossy else os.fsdecode(entry.path)


# --- the truth ---------------------------------------------------------------------------------------------


def digest_of(path: bytes) -> str:
    """MD5 of a file's content, against damage and not against an enemy. Raises OSError."""
    digest = hashlib.md5(usedforsecurity=False)
    with open(path, "rb", buffering=0) as stream:  # noqa: PTH123 - names are bytes
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def digest_of_link(path: bytes) -> str:
    target = os.readlink(path)  # noqa: PTH115 - names are bytes
    return hashlib.md5(target, usedforsecurity=False).hexdigest()


def walk(root: str | bytes) -> Iterator[tuple[bytes, os.stat_result]]:
    """All files below a directory that nobody else writes to, and the directory itself as `.`; no link is followed."""
    top = os.fsencode(root)
    yield b".", os.lstat(top)
    pending = [b""]
    while pending:
        folder = pending.pop()
        with os.scandir(os.path.join(top, folder)) as entries:  # noqa: PTH118 - names are bytes
            for entry in entries:
                path = folder + b"/" + entry.name if folder else entry.name
                found = entry.stat(follow_symlinks=False)
                yield path, found
                if stat.S_ISDIR(found.st_mode):
                    pending.append(path)


def type_of(mode: int) -> str:
    for test, kind in ((stat.S_ISREG, FILE), (stat.S_ISDIR, DIRECTORY), (stat.S_ISLNK, LINK)):
        if test(mode):
            return kind
    return DEVICE if stat.S_ISBLK(mode) or stat.S_ISCHR(mode) else SPECIAL


def measured(root: str | bytes) -> dict[str, int]:
    """Count a tree by types, with the bytes of its files."""
    counted: Counter[str] = Counter()
    total = 0
    for _path, found in walk(root):
        kind = type_of(found.st_mode)
        counted[COUNTED[kind]] += 1
        total += found.st_size if kind == FILE else 0
    return {**{name: counted[name] for name in COUNTED.values()}, "bytes": total}


class Comparison:
    """What a tree has that the list has not, or the other way round."""

    def __init__(self) -> None:
        self.compared = 0
        self.differences: list[str] = []  # the first ones
        self.count = 0
        self.damaged: list[bytes] = []

    def differ(self, path: bytes, words: str) -> None:
        self.count += 1
        if len(self.differences) < _SHOWN:
            self.differences.append(f"{shown(path)}: {words}")

    def words(self) -> str:
        more = f"; and {self.count - 5} more" if self.count > 5 else ""
        return "; ".join(self.differences[:5]) + more


def compare(
    root: str | bytes, expected: Iterable[Entry], *, whole: bool = True, lossy: bool = False, attributes: bool = True
) -> Comparison:
    """Compare a tree with its list; `whole`: there must be nothing else in it.

    `lossy`: the names of the list went through JSON; only names without strange bytes are looked at one by one.
    """
    found = Comparison()
    top = os.fsencode(root)
    strange: Counter[str] = Counter()
    for entry in expected:
        found.compared += 1
        if lossy and b"\xef\xbf\xbd" in entry.path:
            strange[re.sub("\ufffd+", "\ufffd", entry.path.decode())] += 1
            continue
        _compare_one(os.path.join(top, entry.path), entry, found, attributes=attributes)  # noqa: PTH118 - bytes
    if whole or strange:
        count = 0
        for path, _stat in walk(root):
            count += 1
            name = replaced(path) if strange else ""
            if "\ufffd" in name:
                strange[name] -= 1
        for name, number in strange.items():
            if number:
                found.differ(name.encode(), "is not there" if number > 0 else "does not belong there")
        if whole and count != found.compared:
            found.differ(b".", f"{count} files, directories and links are there, {found.compared} were expected")
    return found


def _compare_one(path: bytes, entry: Entry, found: Comparison, *, attributes: bool) -> None:
    try:
        real = os.lstat(path)
    except OSError as error:
        found.differ(entry.path, f"cannot be looked at: {error.strerror}")
        return
    kind = type_of(real.st_mode)
    if kind != entry.type:
        found.differ(entry.path, f"has the type {COUNTED.get(kind, kind)}, not {COUNTED.get(entry.type, entry.type)}")
        return
    if kind == FILE and real.st_size != entry.size:
        found.damaged.append(entry.path)
        found.differ(entry.path, f"has {real.st_size} bytes, not {entry.size}")
        return
    if attributes:
        _compare_attributes(real, entry, found)
    if entry.digest:
        try:
            digest = digest_of_link(path) if kind == LINK else digest_of(path)
        except OSError as error:
            found.damaged.append(entry.path)
            found.differ(entry.path, f"cannot be read: {error.strerror}")
            return
        if digest != entry.digest:
            found.damaged.append(entry.path)
            found.differ(entry.path, "has another content than was recorded")


def _compare_attributes(real: os.stat_result, entry: Entry, found: Comparison) -> None:
    if (real.st_uid, real.st_gid) != (entry.uid, entry.gid):
        found.differ(entry.path, f"belongs to {real.st_uid}:{real.st_gid}, not {entry.uid}:{entry.gid}")
    if entry.type != LINK and stat.S_IMODE(real.st_mode) != entry.mode:
        found.differ(entry.path, f"has the mode {stat.S_IMODE(real.st_mode):04o}, not {entry.mode:04o}")
    if entry.mtime is not None and entry.type != LINK and int(real.st_mtime // 1) != entry.mtime:
        found.differ(entry.path, f"has the time {int(real.st_mtime)}, not {entry.mtime}")
