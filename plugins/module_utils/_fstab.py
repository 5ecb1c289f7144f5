# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""fstab(5): read with all its escapes, changed line by line, everything else kept byte for byte. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ansible_collections.clusterkit.storage.plugins.module_utils._mount_options import parse as parse_options
from ansible_collections.clusterkit.storage.plugins.module_utils._mounts import NFS_TYPES, unescape

FSTAB = "/etc/fstab"
# A field that is written must not hold what ends it; "#" at its start would make a comment of the line.
_ESCAPES = {" ": "\\040", "\t": "\\011", "\n": "\\012", "\\": "\\134"}
_SOURCE, _PATH, _TYPE, _OPTIONS = range(4)
_NUMBERS = slice(4, 6)  # for dump and fsck
_NUMBER = re.compile(r"[+-]?[0-9]+")


@dataclass(frozen=True)
class Entry:
    """One file system of fstab."""

    source: str
    path: str
    fstype: str
    options: tuple[str, ...]
    # Without, libmount (mount, findmnt) ignores the whole line, and systemd mounts what it says.
    numbers: bool = True

    @property
    def is_nfs(self) -> bool:
        return self.fstype in NFS_TYPES


@dataclass(frozen=True)
class Line:
    """One line as it stands, its end included; `entry` is None for comments and whatever is no file system."""

    text: str
    entry: Entry | None


def parse(content: str) -> list[Line]:
    """Return the lines of an fstab; joined, their texts are the content again."""
    # Only "\n" ends a line here: splitlines() would cut at form feeds and the like, too.
    texts = re.findall(r"[^\n]*\n|[^\n]+", content)
    return [Line(text, _parse_entry(text)) for text in texts]


def _parse_entry(text: str) -> Entry | None:
    fields = _fields(text)
    # libmount reads a line without options, too.
    if len(fields) < 3 or fields[_SOURCE].startswith("#"):
        return None
    options = fields[_OPTIONS] if len(fields) > _OPTIONS else ""
    return Entry(
        source=unescape(fields[_SOURCE]),
        path=_normal(unescape(fields[_PATH])),
        fstype=unescape(fields[_TYPE]),
        options=normal_options([unescape(option) for option in parse_options(options)]),
        numbers=all(_NUMBER.fullmatch(field) for field in fields[_NUMBERS]),
    )


def normal_options(options: Sequence[str]) -> tuple[str, ...]:
    """Return options as an entry holds them: "defaults" stands for none."""
    return () if tuple(options) == ("defaults",) else tuple(options)


def _fields(text: str) -> list[str]:
    # Blanks and tabs only, and as in libmount a carriage return before the end of the line: elsewhere that, a no-break
    # space and a "#" are parts of a field.
    return [field for field in re.split(r"[ \t]+", text.rstrip("\n").removesuffix("\r")) if field]


def _normal(path: str) -> str:
    return re.sub("/+", "/", path).rstrip("/") or "/" if path.startswith("/") else path


def escape(field: str) -> str:
    r"""Write a field as fstab wants it (a blank is `\040`)."""
    written = "".join(_ESCAPES.get(character, character) for character in field)
    return "\\043" + written[1:] if written.startswith("#") else written


def entries_at(lines: Sequence[Line], path: str) -> list[Entry]:
    """Return the entries of a mount point, in the order of the file."""
    return [line.entry for line in lines if line.entry is not None and line.entry.path == path]


def render(lines: Sequence[Line]) -> str:
    return "".join(line.text for line in lines)


def with_entry(lines: Sequence[Line], wanted: Entry) -> list[Line]:
    """Return the lines with exactly one NFS entry for the wanted one's mount point; a right line is left as it is."""
    result: list[Line] = []
    placed = False
    for line in lines:
        if not _is_nfs_at(line, wanted.path):
            result.append(line)
        elif not placed:
            result.append(line if line.entry == wanted else Line(_rewrite(line.text, wanted), wanted))
            placed = True
    if placed:
        return result
    if result and not result[-1].text.endswith("\n"):
        result[-1] = Line(result[-1].text + "\n", result[-1].entry)
    return [*result, Line(_write(wanted), wanted)]


def without_entry(lines: Sequence[Line], path: str) -> list[Line]:
    """Return the lines without any NFS entry of this mount point."""
    return [line for line in lines if not _is_nfs_at(line, path)]


def _is_nfs_at(line: Line, path: str) -> bool:
    return line.entry is not None and line.entry.is_nfs and line.entry.path == path


def _options_field(options: Sequence[str]) -> str:
    return escape(",".join(options)) if options else "defaults"


def _write(entry: Entry) -> str:
    fields = [escape(entry.source), escape(entry.path), escape(entry.fstype), _options_field(entry.options)]
    return " ".join([*fields, "0", "0"]) + "\n"


def _rewrite(text: str, wanted: Entry) -> str:
    """Change only the fields that differ, of a line for the same mount point: somebody may have aligned the columns."""
    old = _parse_entry(text)
    pieces = re.split(r"([ \t]+)", text.rstrip("\n"))
    at = [index for index, piece in enumerate(pieces) if piece and piece.strip(" \t")]
    if old is None or len(at) <= _OPTIONS or pieces[at[_OPTIONS]].startswith("#"):
        return _write(wanted)
    if old.source != wanted.source:
        pieces[at[_SOURCE]] = escape(wanted.source)
    if old.fstype != wanted.fstype:
        pieces[at[_TYPE]] = escape(wanted.fstype)
    if old.options != wanted.options:
        pieces[at[_OPTIONS]] = _options_field(wanted.options)
    if not old.numbers:
        for index in at[_NUMBERS]:
            if not _NUMBER.fullmatch(pieces[index].removesuffix("\r")):
                pieces[index] = "0"
    return "".join(pieces) + "\n"
